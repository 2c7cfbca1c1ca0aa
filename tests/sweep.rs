//! The crash sweep: the real binary is killed with `kill -9` at random moments and taken up again until it is done.
//!
//! Short in CI; `FERRY_KILLS=200` (`make sweep`) is the long form. `FERRY_SEED` repeats one life.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// A canary: the sweep also proves that no kill makes a secret leak into what is left behind.
const WORD: &str = "abracadabra-canary";

/// One run of the pipeline in a world of its own.
struct Life {
    folder: tempfile::TempDir,
    rng: StdRng,
    kills: u32,
    story: Vec<String>,
}

/// How a process came to its end.
enum End {
    Killed,
    Exited(i32, String),
}

impl Life {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let life = Self { folder, rng: StdRng::seed_from_u64(seed), kills: 0, story: vec![format!("seed {seed}")] };
        for name in ["counts", "files", "source/deep", "target"] {
            std::fs::create_dir_all(life.out().join(name)).expect("a folder can be made");
        }
        for n in 0..120_usize {
            let content = vec![u8::try_from(n % 251).expect("below 256"); if n % 20 == 0 { 700_000 } else { n * 7 + 1 }];
            let name = if n % 3 == 0 { format!("deep/object {n}") } else { format!("object-{n}") };
            std::fs::write(life.out().join("source").join(name), content).expect("a file can be written");
        }
        // Something is there already, and a rollback must leave it as it is.
        std::fs::write(life.out().join("target/object-1"), vec![1; 8]).expect("a file can be written");
        std::fs::write(life.out().join("files/users"), "what was there before\n").expect("a file can be written");
        life
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn ferry(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferry"));
        command.args(args).current_dir(self.folder.path()).env("SWEEP_WORD", WORD).env("NO_COLOR", "1");
        command.env("FERRY_STORE", self.folder.path().join(".ferry")).stdin(Stdio::null());
        command
    }

    /// Runs ferry; kills it after a random while if `may_kill` and it is still there.
    fn go(&mut self, args: &[&str], may_kill: bool) -> End {
        let output = tempfile::tempfile().expect("a temporary file can be made");
        let errors = output.try_clone().expect("a file can be shared");
        let mut command = self.ferry(args);
        command.stdout(output.try_clone().expect("a file can be shared")).stderr(errors);
        let mut child = command.spawn().expect("ferry starts");
        let longest = if self.rng.random_bool(0.5) { 250 } else { 1500 };
        let deadline = Instant::now() + Duration::from_millis(self.rng.random_range(0..longest));
        loop {
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                let text = read_back(output);
                let code = status.code().unwrap_or(-1);
                self.story.push(format!("ferry {}: {code}", args.join(" ")));
                return End::Exited(code, text);
            }
            if may_kill && Instant::now() >= deadline {
                child.kill().expect("the child can be killed");
                child.wait().expect("the child can be waited for");
                self.kills += 1;
                self.story.push(format!("ferry {}: killed", args.join(" ")));
                return End::Killed;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Until the run has succeeded, or was rolled back when `back_after` kills have come.
    fn live(&mut self, most_kills: u32, back_after: Option<u32>) {
        let before = self.world();
        let pipeline = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sweep/everything.yaml");
        let out = format!("out={}", self.out().display());
        let (mut is_created, mut goes_back) = (false, false);
        loop {
            let may_kill = self.kills < most_kills;
            goes_back |= is_created && back_after.is_some_and(|kills| self.kills >= kills);
            let end = if !is_created {
                self.go(&["run", pipeline, "-i", &out, "--no-wait"], may_kill)
            } else if goes_back {
                self.go(&["rollback", "last"], may_kill)
            } else {
                self.go(&["resume", "last", "--no-wait"], may_kill)
            };
            is_created = is_created || self.has_run();
            match end {
                End::Killed => {}
                End::Exited(0, _) if !goes_back => return self.is_done(),
                End::Exited(0 | 3, _) if goes_back => return self.is_as_before(&before),
                // Past the pivot there is no way back: the run goes on.
                End::Exited(2, text) if goes_back && text.contains("pivot") => return self.live_on(most_kills),
                End::Exited(5, _) => match self.go(&["approve", "last", "go"], false) {
                    End::Exited(0, _) => {}
                    End::Exited(code, text) => panic!("approve: {code}\n{text}\n{}", self.story.join("\n")),
                    End::Killed => unreachable!("not to be killed"),
                },
                End::Exited(code, text) => panic!("exit {code}\n{text}\n{}", self.story.join("\n")),
            }
        }
    }

    fn live_on(&mut self, most_kills: u32) {
        loop {
            let may_kill = self.kills < most_kills;
            match self.go(&["resume", "last", "--no-wait"], may_kill) {
                End::Killed => {}
                End::Exited(0, _) => return self.is_done(),
                End::Exited(code, text) => panic!("exit {code}\n{text}\n{}", self.story.join("\n")),
            }
        }
    }

    /// Whether a run got into the journal before ferry was killed for the first time.
    fn has_run(&self) -> bool {
        let output = self.ferry(&["runs", "--json"]).output().expect("ferry starts");
        String::from_utf8_lossy(&output.stdout).contains("everything")
    }

    fn is_done(&self) {
        for entry in std::fs::read_dir(self.out().join("counts")).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            let lines = std::fs::read_to_string(&path).expect("a file can be read");
            assert_eq!(lines, "done\n", "{} was done once\n{}", path.display(), self.story.join("\n"));
        }
        assert!(!self.out().join("counts/never").exists());
        let told = std::fs::read_to_string(self.out().join("told")).expect("`finally` ran");
        assert_eq!(told.lines().last(), Some("succeeded"));
        let source = files(&self.out().join("source"));
        assert_eq!(files(&self.out().join("target")), source, "the target is the source");
        let digest = digest(&self.world());
        assert_eq!(digest, expected(), "the end is the same every time\n{:#?}\n{}", self.world().keys(), self.story.join("\n"));
        self.keeps_its_secret();
    }

    fn is_as_before(&self, before: &BTreeMap<String, Vec<u8>>) {
        let after = self.world();
        let names = |world: &BTreeMap<String, Vec<u8>>| world.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(before), "the rollback left what was there\n{}", self.story.join("\n"));
        for (name, content) in before {
            // A store without versions cannot bring back what was overwritten; that it is named is another test's.
            if name != "target/object-1" {
                assert_eq!(&after[name], content, "`{name}` is what it was\n{}", self.story.join("\n"));
            }
        }
        self.keeps_its_secret();
    }

    /// All that the pipeline may change, but for what only counts tries.
    fn world(&self) -> BTreeMap<String, Vec<u8>> {
        let mut world = files(&self.out());
        world.retain(|name, _| name != "tries" && name != "told");
        world
    }

    fn keeps_its_secret(&self) {
        for (name, content) in files(&self.folder.path().join(".ferry")) {
            let is_in = content.windows(WORD.len()).any(|window| window == WORD.as_bytes());
            assert!(!is_in, "{name} holds the secret");
        }
    }
}

fn read_back(mut file: std::fs::File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("what ferry said can be read");
    text
}

/// Every file below a folder, by its path from there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut work = vec![folder.to_path_buf()];
    while let Some(folder_now) = work.pop() {
        for entry in std::fs::read_dir(&folder_now).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                work.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).expect("a file can be read"));
            }
        }
    }
    found
}

fn digest(world: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for (name, content) in world {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(Sha256::digest(content));
    }
    format!("{:x}", hash.finalize())
}

/// What a run that nobody disturbs comes to; made once.
fn expected() -> String {
    static EXPECTED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    EXPECTED.get().cloned().unwrap_or_else(|| {
        let mut life = Life::new(0);
        // `is_done` asks for this very value: an undisturbed life is its own measure.
        let pipeline = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sweep/everything.yaml");
        let out = format!("out={}", life.out().display());
        for args in
            [["run", pipeline, "-i", &out, "--no-wait"].as_slice(), &["approve", "last", "go"], &["resume", "last", "--no-wait"]]
        {
            if let End::Exited(code, text) = life.go(args, false) {
                assert!(matches!(code, 0 | 5), "undisturbed, `ferry {}` ends with {code}\n{text}", args.join(" "));
            }
        }
        EXPECTED.get_or_init(|| digest(&life.world())).clone()
    })
}

fn kills_wanted() -> u32 {
    std::env::var("FERRY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

fn sweep(from: u64, goes_back: bool) {
    let wanted = kills_wanted() / 2;
    let mut kills = 0;
    let mut seed = std::env::var("FERRY_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(from);
    while kills < wanted {
        let mut life = Life::new(seed);
        let back_after = goes_back.then(|| life.rng.random_range(1..4));
        life.live(8.min(wanted - kills), back_after);
        kills += life.kills.max(1);
        seed += 1;
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_comes_to_the_same_end() {
    sweep(1, false);
}

#[test]
fn a_rollback_from_a_random_moment_leaves_the_world_as_it_was() {
    sweep(100_001, true);
}
