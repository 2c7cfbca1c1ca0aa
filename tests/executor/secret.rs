//! Secrets on their way through a run: what later steps, other processes and the journal get of them.

use ferry::engine::RunStatus;
use serde_json::{Value, json};

use super::lab::{Lab, failure};

/// What the journal holds of a run, as one text.
fn journal(lab: &Lab, run: &str) -> String {
    lab.records(run).iter().map(|record| serde_json::to_string(&record.event).expect("plain data")).collect()
}

fn output(lab: &Lab, run: &str, step: &str) -> Value {
    lab.engine(run).step(&step.into()).expect("a step").output.clone().unwrap_or_default()
}

/// A rollback has a vault of its own, as another process has: it knows the secrets, and nothing that was made of them.
#[tokio::test]
async fn what_every_helper_made_of_a_secret_is_undone_by_another_process() {
    let lab = Lab::new();
    lab.write("key.txt", "Ke/y \"One\"");
    lab.write("pw.txt", "p@ss,word(1)");
    lab.write(
        "inner.yaml",
        "
name: inner
inputs: { auth: { type: string } }
steps:
  - { id: mixed, uses: file.write, with: { path: mixed, content: '{{ base64 inputs.auth }}' } }
  - { id: twice, uses: file.write, with: { path: twice, content: '{{ upper (base64 (replace inputs.auth \"user:\" \"a,b\")) }}' } }
",
    );
    let contents = [
        ("replace", "{{ replace secrets.key \"y\" \"x\" }}", "Ke/x \"One\""),
        ("swap", "{{ replace \"say y\" \"y\" secrets.key }}", "saKe/y \"One\" Ke/y \"One\""),
        ("lower", "{{ lower secrets.key }}", "ke/y \"one\""),
        ("upper", "{{ upper secrets.key }}", "KE/Y \"ONE\""),
        ("trim", "{{ trim secrets.key }}", "Ke/y \"One\""),
        ("base64", "{{ base64 secrets.key }}", "S2UveSAiT25lIg=="),
        ("sha256", "{{ sha256 secrets.pw }}", "d629a9b1bfa05915c6bea04cbe7c71ec0d8358eee88365fc94260823f0b5956f"),
        ("json", "{{ json secrets.key }}", "\"Ke/y \\\"One\\\"\""),
        ("default", "{{ default secrets.key \"none\" }}", "Ke/y \"One\""),
        ("inline", "x {{ secrets.key }} y", "x Ke/y \"One\" y"),
    ];
    let steps: Vec<String> = contents
        .iter()
        .map(|(name, content, _)| {
            format!("  - {{ id: {name}, uses: file.write, with: {{ path: {name}, content: '{content}' }} }}\n")
        })
        .collect();
    let text = "
secrets: { key: { file: key.txt }, pw: { file: pw.txt } }
steps:
STEPS
  - { id: inner, uses: ./inner.yaml, with: { auth: 'user:{{ secrets.pw }}' } }
";
    let text = text.replace("STEPS", &steps.concat());
    for (name, ..) in &contents {
        lab.write(name, "former");
    }
    lab.write("mixed", "former");
    let (run, status) = lab.run(&text).await;
    assert_eq!(status, RunStatus::Succeeded);
    let read = |name: &str| std::fs::read_to_string(lab.path(name)).expect("written");
    for (name, _, content) in &contents {
        assert_eq!(read(name), *content, "{name}");
    }
    assert_eq!(read("mixed"), "dXNlcjpwQHNzLHdvcmQoMSk=");
    assert_eq!(read("twice"), "YSXICEBZCYX3B3JKKDEP");
    let told = journal(&lab, &run);
    for secret in ["Ke/y", "KE/Y", "ke/y", "p@ss", "S2UveSA", "dXNlcjpw", "wQHNz"] {
        assert!(!told.contains(secret), "the journal has {secret}");
    }
    assert_eq!(lab.executor.rollback(&run, false).await.expect("a session"), RunStatus::RolledBack);
    for (name, ..) in &contents {
        assert_eq!(read(name), "former", "{name}");
    }
    assert_eq!(read("mixed"), "former");
    assert!(!lab.path("twice").exists());
}

/// The URL of a database with the password escaped is no URL any more with the password as it is.
#[tokio::test]
async fn an_encoded_secret_in_an_output_reaches_the_next_step_as_it_was() {
    let lab = Lab::new();
    lab.write("pw.txt", "p@s s/ü<1>");
    let told = [
        ("url", "postgres://u:p%40s%20s%2F%C3%BC%3C1%3E@h/db"),
        ("lower", "postgres://u:p%40s%20s%2f%c3%bc%3c1%3e@h/db"),
        ("form", "a=1&p=p%40s+s%2F%C3%BC%3C1%3E"),
        ("json", "{\"pw\":\"p@s s/\\u00fc<1>\"}"),
        ("go", "{\"pw\":\"p@s s/ü\\u003c1\\u003e\"}"),
        ("base64", "Basic dTpwQHMgcy/DvDwxPg=="),
    ];
    let steps: Vec<String> = told
        .iter()
        .map(|(id, text)| {
            format!(
                "  - {{ id: {id}, uses: command, with: {{ run: [printf, '%s', '{text}'], outputs: text }} }}
  - id: {id}-used
    uses: command
    needs: [{id}]
    with: {{ run: 'test \"$GOT\" = ''{text}''', env: {{ GOT: '{{{{ steps.{id}.outputs.text }}}}' }} }}
"
            )
        })
        .collect();
    let (run, status) = lab.run(&format!("secrets: {{ pw: {{ file: pw.txt }} }}\nsteps:\n{}", steps.concat())).await;
    let engine = lab.engine(&run);
    let failures: String = told.iter().map(|(id, _)| failure(&engine, &format!("{id}-used"))).collect();
    assert_eq!(status, RunStatus::Succeeded, "{failures}");
    for (id, text) in told {
        let kept = output(&lab, &run, id)["text"].as_str().expect("a text").to_owned();
        assert!(kept != text && ferry::secret::is_marked(&kept), "{id}: {kept}");
    }
}

#[tokio::test]
async fn lines_of_a_key_and_numbers_are_not_in_the_journal_and_stay_usable() {
    let lab = Lab::new();
    let key = "-----BEGIN KEY-----\nMzkwZmlsZWNhbmFyeTQ0\nbGluZXR3bw9876\n-----END KEY-----";
    lab.write("key.pem", &format!("{key}\n"));
    lab.write("pin.txt", "471108");
    let text = r#"
secrets: { key: { file: key.pem }, pin: { file: pin.txt } }
steps:
  - { id: lines, uses: command, with: { run: cat key.pem, outputs: lines } }
  - { id: number, uses: command, with: { run: 'printf ''{"pin":%s,"n":[1,%s0]}'' $(cat pin.txt) $(cat pin.txt)', outputs: json } }
  - id: used
    uses: command
    with:
      run: test "$PIN" = 471108 && test "$KEY" = "$(cat key.pem)"
      env: { PIN: '{{ steps.number.outputs.json.pin }}', KEY: '{{ join steps.lines.outputs.lines "\n" }}' }
"#;
    let (run, status) = lab.run(text).await;
    assert_eq!(status, RunStatus::Succeeded, "{}", failure(&lab.engine(&run), "used"));
    let told = journal(&lab, &run);
    for secret in key.lines().chain(["\"pin\":471108"]) {
        assert!(!told.contains(secret), "the journal has {secret}");
    }
    assert_eq!(output(&lab, &run, "number")["json"]["n"], json!([1, 4_711_080]), "another number stays one");
}

#[tokio::test]
async fn a_missing_secret_fails_no_step_that_needs_another_with_a_longer_name() {
    let lab = Lab::new();
    let text = "
secrets: { pw: { env: FERRY_TEST_NOT_SET }, db_pw: { command: 'printf given' } }
steps:
  - { id: x, uses: test.act, with: { secret: '{{ base64 secrets.db_pw }}' } }
  - { id: y, uses: test.act, with: { secret: '{{ base64 (upper secrets.pw) }}' }, needs: [x] }
";
    let (run, status) = lab.run(text).await;
    assert_eq!(status, RunStatus::Failed);
    let engine = lab.engine(&run);
    assert_eq!(failure(&engine, "x"), "");
    assert!(failure(&engine, "y").contains("FERRY_TEST_NOT_SET"), "{}", failure(&engine, "y"));
}

/// A mark in the name of a file would make a file with a name that nobody can type.
#[tokio::test]
async fn a_secret_in_a_key_that_takes_none_is_refused_when_it_comes_through_an_input() {
    let lab = Lab::new();
    lab.write("tenant.txt", "acme-tenant");
    lab.write(
        "inner.yaml",
        "
name: inner
inputs: { tenant: { type: string } }
steps: [{ id: put, uses: file.write, with: { path: './{{ inputs.tenant }}.txt', content: x } }]
",
    );
    let text = "
secrets: { tenant: { file: tenant.txt } }
steps: [{ id: a, uses: ./inner.yaml, with: { tenant: '{{ secrets.tenant }}' } }]
";
    let (run, status) = lab.run(text).await;
    assert_eq!(status, RunStatus::Failed);
    let message = failure(&lab.engine(&run), "a/put");
    assert_eq!(message, "a secret stands in `path` of `file.write`, which takes none");
    let files = std::fs::read_dir(lab.temp.path()).expect("a folder").flatten().map(|entry| entry.file_name());
    assert!(files.into_iter().all(|name| !ferry::secret::is_marked(&name.to_string_lossy())));
}

#[tokio::test]
async fn a_secret_without_end_is_refused_by_its_name() {
    let lab = Lab::new();
    let text = "
secrets: { device: { file: /dev/zero }, endless: { command: 'yes correct-horse' }, fits: { command: 'head -c 1048576 /dev/zero | tr \\\\0 x' } }
steps:
  - { id: a, uses: test.act, with: { secret: '{{ secrets.device }}' }, continue_on_error: true }
  - { id: b, uses: test.act, with: { secret: '{{ secrets.endless }}' }, continue_on_error: true }
  - { id: c, uses: file.write, with: { path: out, content: '{{ secrets.fits }}' }, needs: [a, b] }
";
    let (run, _) = lab.run(text).await;
    let engine = lab.engine(&run);
    assert!(failure(&engine, "a").contains("the secret `device` is longer than 1.0 MiB"), "{}", failure(&engine, "a"));
    assert!(failure(&engine, "b").contains("the secret `endless` is longer than 1.0 MiB"), "{}", failure(&engine, "b"));
    assert_eq!(std::fs::metadata(lab.path("out")).expect("written").len(), 1 << 20, "{}", failure(&engine, "c"));
}

/// The pipelines of a run share one list of variables, which no check of one of them sees.
#[tokio::test]
async fn a_variable_that_is_a_secret_in_one_pipeline_and_listed_in_another_is_refused() {
    let lab = Lab::new();
    lab.write(
        "inner.yaml",
        "
name: inner
secrets: { home: { env: HOME } }
steps: [{ id: b, uses: test.act, with: { secret: '{{ secrets.home }}' } }]
",
    );
    let (run, status) = lab.run("env: [HOME]\nsteps: [{ id: a, uses: ./inner.yaml }]\n").await;
    assert_eq!(status, RunStatus::Failed);
    assert!(failure(&lab.engine(&run), "a/b").contains("is listed under `env`"), "{}", failure(&lab.engine(&run), "a/b"));
}

#[tokio::test]
async fn a_large_file_is_kept_without_the_secrets_of_the_run_and_comes_back_with_them() {
    let lab = Lab::new();
    lab.write("key.txt", "correct-horse-battery");
    let former = format!("{}\npassword = correct-horse-battery\n", "setting = 1\n".repeat(20_000));
    lab.write("conf", &former);
    let text = "
secrets: { key: { file: key.txt } }
steps: [{ id: a, uses: file.write, with: { path: conf, content: 'key {{ secrets.key }}' } }]
";
    let (run, status) = lab.run(text).await;
    assert_eq!(status, RunStatus::Succeeded, "{}", failure(&lab.engine(&run), "a"));
    let kept = lab.executor.journal.run_dir(&run).join("scratch").join("a");
    let names: Vec<_> = std::fs::read_dir(&kept).expect("a copy").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["former.marked"]);
    let copy = kept.join("former.marked");
    assert!(!std::fs::read_to_string(&copy).expect("a text").contains("correct-horse"));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&copy).expect("there"));
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(lab.executor.rollback(&run, false).await.expect("a session"), RunStatus::RolledBack);
    assert_eq!(std::fs::read_to_string(lab.path("conf")).expect("put back"), former);
}
