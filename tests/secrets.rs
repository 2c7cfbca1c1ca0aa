//! Canary secrets from every source, sent through everything that a pipeline can do with them, and then searched for in
//! every artefact of the run, in every encoding.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use sha2::{Digest as _, Sha256};

const FROM_ENV: &str = "Qz7\"env+can/ary&one<1>";
const FROM_FILE: &str = "-----BEGIN CANARY KEY-----\nMzkwZmlsZWNhbmFyeTQ0\nbGluZXR3bw9876canary\n-----END CANARY KEY-----";
const FROM_COMMAND: &str = "kX9:command%canary=Two'quotes";

const PIPELINE: &str = r#"
name: canaries
inputs:
  url: { type: string }
secrets:
  one: { env: CANARY_ONE }
  two: { file: ./two.pem }
  three: { command: [cat, ./three.txt] }
steps:
  - id: file
    uses: file.write
    with:
      path: ./out/conf
      content: |
        {{ secrets.one }} {{ base64 secrets.one }} {{ secrets.two }} {{ json secrets.three }}

  - id: tell
    uses: command
    with:
      run: |
        printf 'one %s\n' "$ONE"; printf 'two %s\n' "$TWO" >&2; cat
        printf %s "$ONE" | base64 -w0; echo
        printf 'user:%s' "$THREE" | base64 -w0 >&2; echo >&2
        # Across the border of two writes.
        printf %s "$ONE" | head -c 8; sleep 0.2; printf %s "$ONE" | tail -c +9; echo
      env: { ONE: "{{ secrets.one }}", TWO: "{{ secrets.two }}", THREE: "{{ secrets.three }}" }
      stdin: "three {{ secrets.three }}\n"
      outputs: lines

  - id: helpers
    uses: command
    with:
      run: env | grep '^H_' | sort
      env:
        H_BASE64: "{{ base64 secrets.one }}"
        H_SHA256: "{{ sha256 secrets.one }}"
        H_LOWER: "{{ lower secrets.one }}"
        H_UPPER: "{{ upper secrets.three }}"
        H_TRIM: "{{ trim secrets.one }}"
        H_JSON: "{{ json secrets.one }}"
        H_REPLACE: "{{ replace secrets.one 'can' 'CAN' }}"
        H_DEFAULT: "{{ default secrets.one 'none' }}"
        H_INLINE: "postgres://user:{{ secrets.three }}@host/db"
      outputs: text

  # What a step left stays usable: the mark in it is a value again where it is needed.
  - id: usable
    uses: command
    with:
      run: 'test "$TEXT" = "one $ONE"'
      env: { TEXT: "{{ steps.first.outputs.text }}", ONE: "{{ secrets.one }}" }

  - id: first
    uses: command
    with: { run: 'printf "one %s" "$ONE"', env: { ONE: "{{ secrets.one }}" }, outputs: text }

  - id: conditional
    uses: command
    if: "{{ eq inputs.url 'somewhere else' }}"
    with: { run: "true" }

  - id: echo
    uses: http.request
    with:
      method: PUT
      url: "{{ inputs.url }}/echo?in-url={{ secrets.three }}"
      headers: { Authorization: "Bearer {{ secrets.three }}", X-One: "{{ secrets.one }}" }
      query: { key: "{{ secrets.one }}" }
      json: { one: "{{ secrets.one }}", two: "{{ secrets.two }}" }
      outputs: text

  - id: refused
    uses: http.request
    continue_on_error: true
    with:
      method: POST
      url: "{{ inputs.url }}/refuse?key={{ secrets.one }}"
      form: { one: "{{ secrets.one }}", two: "{{ secrets.two }}", three: "{{ secrets.three }}" }

  - id: failing
    uses: command
    continue_on_error: true
    with:
      run: 'echo "cannot log in as $ONE" >&2; printf "%s\n" "$TWO" >&2; exit 9'
      env: { ONE: "{{ secrets.one }}", TWO: "{{ secrets.two }}" }

  - id: claim
    uses: assert
    continue_on_error: true
    with: { that: "{{ eq steps.first.outputs.code 1 }}", message: "{{ secrets.one }} is not {{ secrets.three }}" }

  # Long enough for the test to look at every process of the machine.
  - id: visible
    uses: command
    with: { run: "sleep 1", env: { ONE: "{{ secrets.one }}", THREE: "{{ secrets.three }}" }, stdin: "{{ secrets.two }}" }

outputs:
  told: "{{ steps.tell.outputs.lines }}"
  helped: "{{ steps.helpers.outputs.text }}"
  echoed: "{{ steps.echo.outputs.text }}"
"#;

/// Every form in which a canary must not be seen, with what it is.
fn forms() -> Vec<(String, String)> {
    let standard = base64::engine::general_purpose::STANDARD_NO_PAD;
    let mut forms = Vec::new();
    for (name, value) in [("env", FROM_ENV), ("file", FROM_FILE), ("command", FROM_COMMAND)] {
        let mut add = |form: &str, text: String| forms.push((format!("{form} of the {name} secret"), text));
        add("raw", value.to_owned());
        add("JSON", serde_json::to_string(value).expect("a text").trim_matches('"').to_owned());
        add("JSON in JSON", {
            let once = serde_json::to_string(value).expect("a text");
            serde_json::to_string(&once).expect("a text").trim_matches(['"', '\\']).to_owned()
        });
        let form: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        add("form", form.clone());
        add("URL", form.replace('+', "%20"));
        let hex = value.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        add("HEX", hex.to_uppercase());
        add("hex", hex);
        add("SHA-256", format!("{:x}", Sha256::digest(value)));
        for lead in 0..3 {
            let shifted = standard.encode([vec![b'x'; lead], value.as_bytes().to_vec()].concat());
            // The digits that are the same whatever stands around.
            add("base64", shifted[(8 * lead).div_ceil(6)..8 * (lead + value.len()) / 6].to_owned());
        }
        add("lower case", value.to_lowercase());
        add("upper case", value.to_uppercase());
    }
    for line in FROM_FILE.lines() {
        forms.push(("one line of the file secret".to_owned(), line.to_owned()));
    }
    forms
}

/// Panics with the first canary that shows.
fn search(place: &str, bytes: &[u8]) {
    for (what, form) in forms() {
        if let Some(at) = bytes.windows(form.len()).position(|window| window == form.as_bytes()) {
            let around = &bytes[at.saturating_sub(80)..(at + form.len() + 40).min(bytes.len())];
            panic!("{place} shows the {what}: …{}…", String::from_utf8_lossy(around));
        }
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { files(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

fn ferry(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferry"));
    command.args(arguments).current_dir(folder).env("CANARY_ONE", FROM_ENV).env_remove("FERRY_STORE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = ferry(folder, arguments).output().expect("ferry runs");
    search(&format!("stdout of ferry {arguments:?}"), &output.stdout);
    search(&format!("stderr of ferry {arguments:?}"), &output.stderr);
    output
}

/// Gives everything back that it is sent, and refuses what comes to `/refuse`.
async fn echo(listener: tokio::net::TcpListener, heard: Arc<Mutex<String>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let heard = heard.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let heard = heard.clone();
                async move {
                    let status = if request.uri().path() == "/refuse" { 418 } else { 200 };
                    let request_line = format!("{} {:?}", request.uri(), request.headers());
                    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    let said = format!("{request_line} {}", String::from_utf8_lossy(&body));
                    heard.lock().expect("not poisoned").push_str(&said);
                    let answer: Response<Full<Bytes>> = Response::builder().status(status).body(said.into()).expect("an answer");
                    Ok::<_, Infallible>(answer)
                }
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
        });
    }
}

/// The arguments of every process, again and again while ferry runs.
fn watch(child: &mut std::process::Child) -> BTreeSet<Vec<u8>> {
    let mut seen = BTreeSet::new();
    while child.try_wait().expect("ours").is_none() {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            seen.extend(std::fs::read(entry.path().join("cmdline")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_is_in_any_artefact_of_a_run() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("url=http://{}", listener.local_addr().expect("bound"));
    let heard = Arc::new(Mutex::new(String::new()));
    let server = tokio::spawn(echo(listener, heard.clone()));

    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let former = format!("old settings\npassword = {FROM_ENV}\n");
    for (name, text) in [("canaries.yaml", PIPELINE), ("two.pem", FROM_FILE), ("three.txt", FROM_COMMAND)] {
        std::fs::write(folder.join(name), text).expect("written");
    }
    std::fs::create_dir(folder.join("out")).expect("created");
    std::fs::write(folder.join("out/conf"), &former).expect("written");

    for arguments in [vec!["check", "canaries.yaml"], vec!["plan", "canaries.yaml", "-i", &url], vec!["graph", "canaries.yaml"]] {
        let output = run(folder, &arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut child = ferry(folder, &["run", "canaries.yaml", "-i", &url, "--yes"]).spawn().expect("ferry runs");
    let arguments = watch(&mut child);
    let output = child.wait_with_output().expect("it ended");
    search("stdout of ferry run", &output.stdout);
    search("stderr of ferry run", &output.stderr);
    assert!(arguments.iter().any(|argv| argv.starts_with(b"sh\0-c\0sleep 1")), "the child was never seen");
    for argv in &arguments {
        search("an argument list", argv);
    }

    // The secrets did arrive where they were meant to: else nothing above proves anything.
    let story = run(folder, &["show", "last", "--json"]);
    let story = String::from_utf8_lossy(&story.stdout).into_owned();
    let steps = steps(&story);
    for (step, state) in [
        ("file", "succeeded"),
        ("tell", "succeeded"),
        ("helpers", "succeeded"),
        ("usable", "succeeded"),
        ("conditional", "skipped"),
        ("echo", "succeeded"),
        ("refused", "failed"),
        ("failing", "failed"),
        ("claim", "failed"),
        ("visible", "succeeded"),
    ] {
        assert!(steps.contains(&(step.to_owned(), state.to_owned())), "`{step}` has not {state}: {story}");
    }
    let written = std::fs::read_to_string(folder.join("out/conf")).expect("written");
    assert!(written.contains(FROM_ENV) && written.contains(FROM_FILE), "{written}");
    assert!(heard.lock().expect("not poisoned").contains(&format!("Bearer {FROM_COMMAND}")));

    for arguments in [
        vec!["show", "last"],
        vec!["logs", "last"],
        vec!["logs", "last", "tell"],
        vec!["logs", "last", "--json"],
        vec!["runs"],
        vec!["runs", "--json"],
        vec!["why", "last", "conditional"],
        vec!["why", "last", "failing", "--json"],
        vec!["why", "last", "usable"],
        vec!["report", "last"],
        vec!["report", "last", "--html", "report.html"],
        vec!["plan", "canaries.yaml", "-i", &url, "--json"],
        vec!["resume", "last", "--json"],
    ] {
        run(folder, &arguments);
    }
    let logs = run(folder, &["logs", "last", "tell"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("***"), "the log masks, and does not leave out");

    let undone = run(folder, &["rollback", "last", "--yes"]);
    let now = std::fs::read_to_string(folder.join("out/conf")).expect("put back");
    assert_eq!(now, former, "{}", String::from_utf8_lossy(&undone.stderr));
    run(folder, &["run", "canaries.yaml", "-i", &url, "--yes", "--json"]);
    run(folder, &["diff", "last", "last"]);

    let mut artefacts = Vec::new();
    files(&folder.join(".ferry"), &mut artefacts);
    assert!(artefacts.iter().any(|path| path.to_string_lossy().contains("log")), "{artefacts:?}");
    artefacts.extend([folder.join("report.html")].into_iter().filter(|path| path.exists()));
    for path in artefacts {
        search(&path.to_string_lossy(), &std::fs::read(&path).expect("readable"));
    }
    server.abort();
}

/// Every `{ "step" | "path" | "id": …, "state" | "status": … }` anywhere in a document.
fn steps(story: &str) -> BTreeSet<(String, String)> {
    fn walk(value: &serde_json::Value, found: &mut BTreeSet<(String, String)>) {
        match value {
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            serde_json::Value::Object(fields) => {
                let text = |keys: &[&str]| keys.iter().find_map(|key| fields.get(*key)?.as_str()).map(str::to_owned);
                if let (Some(step), Some(state)) = (text(&["step", "path", "id"]), text(&["state", "status"])) {
                    found.insert((step, state));
                }
                fields.values().for_each(|value| walk(value, found));
            }
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(&serde_json::from_str(story).expect("one JSON document"), &mut found);
    found
}
