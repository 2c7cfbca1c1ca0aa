//! The same questions over SSH: a server on this machine, so that the world is one and only the way differs.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;

use ferry::hosts::{Host, SshHost, Target};

use crate::parts;

thread_local! {
    /// The host that worlds of this thread are given.
    static HOST: RefCell<Option<Arc<dyn Host>>> = const { RefCell::new(None) };
}

/// The host by SSH, while questions are put over it.
pub fn host() -> Option<Arc<dyn Host>> {
    HOST.with_borrow(Clone::clone)
}

/// Puts a question over SSH.
pub async fn ask(question: impl Future<Output = ()>) {
    let Some(server) = parts::sftp() else { return };
    let data = server.data.path();
    let key = std::fs::read_to_string(data.join("host.pub")).expect("it has one");
    std::fs::write(data.join("known_hosts"), format!("[127.0.0.1]:{} {key}", server.port)).expect("written");
    let config = format!(
        "IdentityFile {0}/key\nIdentitiesOnly yes\nUserKnownHostsFile {0}/known_hosts\nGlobalKnownHostsFile /dev/null\n",
        data.display()
    );
    std::fs::write(data.join("config"), config).expect("written");
    let target = Target {
        port: Some(server.port),
        config: Some(data.join("config").to_string_lossy().into_owned()),
        ..Target::new("127.0.0.1")
    };
    HOST.set(Some(Arc::new(SshHost::new("local", target))));
    question.await;
    HOST.set(None);
}
