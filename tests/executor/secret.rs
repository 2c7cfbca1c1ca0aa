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
    let steps: String = contents
        .iter()
        .map(|(name, content, _)| {
            format!("  - {{ id: {name}, uses: file.write, with: {{ path: {name}, content: '{content}' }} }}\n")
        })
        .collect();
    let text = format!(
        "
secrets: {{ key: {{ file: key.txt }}, pw: {{ file: pw.txt }} }}
steps:
{steps}
  - {{ id: inner, uses: ./inner.yaml, with: {{ auth: 'user:{{{{ secrets.pw }}}}' }} }}
"
    );
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
    let steps: String = told
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
    let (run, status) = lab.run(&format!("secrets: {{ pw: {{ file: pw.txt }} }}\nsteps:\n{steps}")).await;
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
