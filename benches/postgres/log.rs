//! The log into an archive and out of it, segment by segment, as a server would ask for it.

use super::rounds::{Row, Used};
use super::{Bench, HOME, run};

/// One way to archive: what is run for each segment, and how it is brought back. `%f` is its name.
struct Way {
    push: &'static str,
    fetch: &'static str,
    /// What it needs before it begins.
    before: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        push: "/srv/ferry wal push --archive /var/lib/postgresql/archive.yaml pg_wal/%f",
        fetch: "/srv/ferry wal fetch --archive /var/lib/postgresql/archive.yaml %f pg_wal/RECOVERYXLOG",
        before: "rm -rf depot data/pg_wal/ferry-spool",
    },
    Way {
        push: "pgbackrest --config=/var/lib/postgresql/pgbackrest.conf --stanza=main archive-push pg_wal/%f",
        fetch: "pgbackrest --config=/var/lib/postgresql/pgbackrest.conf --stanza=main archive-get %f pg_wal/RECOVERYXLOG",
        before: "rm -rf repo spool; mkdir spool; pgbackrest --config=/var/lib/postgresql/pgbackrest.conf --stanza=main --no-online stanza-create",
    },
    Way {
        push: "zstd -3 -q --check pg_wal/%f -o ../plain/%f.part && mv ../plain/%f.part ../plain/%f",
        fetch: "zstd -d -q ../plain/%f -o pg_wal/RECOVERYXLOG",
        before: "rm -rf plain; mkdir plain",
    },
    Way {
        push: "cp pg_wal/%f ../plain/%f.part && mv ../plain/%f.part ../plain/%f",
        fetch: "cp ../plain/%f pg_wal/RECOVERYXLOG",
        before: "rm -rf plain; mkdir plain",
    },
];

impl Bench<'_> {
    /// `ferry wal push` and `fetch` against pgBackRest's and against what is written by hand. The server is stopped, and a
    /// script asks in its place: one segment after the other, each by a shell, as the server does.
    pub fn log(&self, segments: usize) -> Vec<Row> {
        let host = self.alpha.host;
        self.alpha.stop();
        let status = format!("{HOME}/data/pg_wal/archive_status");
        let ready = host
            .says(&format!("cd {status}; ls | sed -n 's/^\\([0-9A-F]\\{{24\\}}\\).ready$/\\1/p' | sort | tail -n {segments}"));
        let names: Vec<&str> = ready.lines().collect();
        assert_eq!(names.len(), segments, "the log is shorter than that: a larger --scale, or fewer --segments");
        host.says(&format!("cd {status}; for f in *.ready; do mv $f ${{f%.ready}}.done; done"));
        let peers = ["`pgbackrest`, asynchronous, two processes", "`zstd -3`, by hand", "`cp`, by hand"];
        let mut rows: Vec<Row> = Vec::new();
        for (what, aim) in
            [("`ferry wal push`, two at once", ["1.0", "1.0", ""]), ("`ferry wal fetch`, two at once", ["1.0", "1.0", ""])]
        {
            rows.extend(peers.iter().zip(aim).map(|(title, aim)| Row::new(what, title, aim)));
        }
        for _ in 0..self.rounds {
            let mut used: Vec<(Used, Used)> = Vec::new();
            for way in &WAYS {
                run(host, way.before);
                host.says(&format!("cd {status}; for f in {}; do mv $f.done $f.ready; done", names.join(" ")));
                run(host, "rm -rf got; mkdir got");
                let each = |line: &str, then: &str| -> String {
                    // As the server runs it: each by a shell of its own.
                    let lines =
                        names.iter().map(|name| format!("sh -c '{}'; {}", line.replace("%f", name), then.replace("%f", name)));
                    format!("cd data\n{}", lines.collect::<Vec<_>>().join("\n"))
                };
                let script = |text: String| std::fs::write(host.path(&format!("{HOME}/each.sh")), text).expect("room");
                script(each(way.push, "mv pg_wal/archive_status/%f.ready pg_wal/archive_status/%f.done"));
                let push = Used { cpu: None, ..run(host, "sh -e each.sh") };
                script(each(way.fetch, "mv pg_wal/RECOVERYXLOG ../got/%f"));
                let fetch = Used { cpu: None, ..run(host, "sh -e each.sh") };
                run(host, &format!("cd got; for f in {}; do cmp $f ../data/pg_wal/$f; done", names.join(" ")));
                used.push((push, fetch));
            }
            for (at, (push, fetch)) in used[1..].iter().enumerate() {
                rows[at].add(used[0].0, *push);
                rows[at + peers.len()].add(used[0].1, *fetch);
            }
        }
        run(host, "rm -rf depot repo plain got spool");
        rows
    }
}
