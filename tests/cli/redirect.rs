//! Where a request may be led.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use super::bench::Bench;

/// Answers one request after another with this text; tells of each.
fn serve(answer: impl Fn(u16) -> String + Send + 'static) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let (sender, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap_or(0);
            if sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                return;
            }
            let _ = stream.write_all(answer(port).as_bytes());
        }
    });
    (port, heard)
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[test]
fn a_redirect_to_another_server_is_not_followed() {
    let (second, asked_other) = serve(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned());
    let (first, asked_first) = serve(move |_| moved(&format!("http://127.0.0.1:{second}/there")));
    let bench = Bench::new();
    bench.write(
        "p.yaml",
        &format!(
            "name: p\nsteps:\n  - id: ask\n    uses: http.request\n    with:\n      method: GET\n      \
             url: http://127.0.0.1:{first}/\n      headers: {{ X-Api-Key: kept }}\n"
        ),
    );
    let ran = bench.ferry(&["run", "p.yaml"]).output().expect("the binary starts");
    assert_eq!(ran.status.code(), Some(1), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(asked_first.recv_timeout(Duration::from_secs(10)).expect("it was asked").contains("kept"));
    assert!(asked_other.try_recv().is_err(), "the other server heard nothing");
}
