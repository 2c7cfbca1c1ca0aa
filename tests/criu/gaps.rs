//! The pause that a client sees, beside the same done with bare commands: part of `make trials`, for its figures.

use std::process::Command;
use std::time::Duration;

use super::MOVE;
use super::STRAIGHT;
use super::bench::Bench;
use super::lab::counter::{self, Asker};
use super::lab::{Lab, Machine};
use super::lazy::LAZY;

/// By hand, from memory to memory, past SSH. `A` and `B` enter the hosts; the process is `$1`.
const BARE: &str = r#"set -e
D=/dev/shm/bare; IP=10.77.0.99; FLAGS="--tcp-established --network-lock nftables"
$A mkdir -p $D; $B mkdir -p $D; $B nft "table inet bare { chain in { type filter hook input priority -300; ip daddr $IP drop; }; }"
address() { $A ip addr del $IP/32 dev eth0; $B ip addr add $IP/32 dev eth0; $B sh -c "arping -q -U -c 1 -w 1 -I eth0 -S $IP $IP & :" >/dev/null 2>&1; }
copy() { $A sh -c "cd $D && tar -cf - *.img" | $B tar -C $D -xf -; }
if [ "$2" = checkpoint ]; then
  $A criu dump -t $1 -D $D $FLAGS -o dump.log -v2; address; copy
  $B criu restore -d -D $D $FLAGS -o restore.log -v2; $B nft delete table inet bare
else
  $A sh -c "exec criu dump -t $1 -D $D $FLAGS --lazy-pages --address 10.77.0.10 --port 9876 --status-fd 3 -o dump.log -v2 3>$D/ready" &
  until $A test -s $D/ready; do sleep 0.005; done
  address; copy
  $B criu lazy-pages --page-server --address 10.77.0.10 --port 9876 -D $D -o lazy.log -v2 & pages=$!
  until $B test -S $D/lazy-pages.socket; do sleep 0.005; done
  $B criu restore -d -D $D $FLAGS --lazy-pages -o restore.log -v2; $B nft delete table inet bare; wait $pages
fi"#;

fn bare(alpha: &Machine, beta: &Machine, mode: &str) {
    let enter = |host: &Machine| format!("nsenter -t {} -m -u -i -n -p", host.process());
    let pid = alpha.says("cat /run/counter.pid");
    let mut command = Command::new("bash");
    command.args(["-c", BARE, "bare", &pid, mode]).env("A", enter(alpha)).env("B", enter(beta));
    let output = command.output().expect("bash runs");
    assert!(output.status.success(), "{mode}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The longest that the client waited for an answer.
fn gap(megabytes: u32, dirties: &str, mode: &str, by_ferry: bool) -> Duration {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::long_pipes();
    counter::start_busy(alpha, megabytes, dirties);
    let how = if mode == "checkpoint" { STRAIGHT } else { LAZY };
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta"]) + MOVE + how));
    let asker = Asker::start();
    std::thread::sleep(Duration::from_millis(500));
    if by_ferry {
        bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    } else {
        bare(alpha, beta, mode);
    }
    assert!(!counter::runs(alpha) && counter::runs(beta), "{mode}, {by_ferry}");
    std::thread::sleep(Duration::from_millis(500));
    asker.stop().1
}

#[test]
fn the_gap_is_not_much_longer_than_by_hand() {
    let Ok(rounds) = std::env::var("FERRY_TRIALS") else { return };
    let rounds: usize = rounds.parse().expect("a number of rounds");
    println!("| memory | dirtied | mode | ferry | by hand |\n| --- | --- | --- | --- | --- |");
    for megabytes in [16, 256, 1024] {
        for dirties in ["", "20"] {
            for mode in ["checkpoint", "post-copy"] {
                let mut gaps = [Vec::new(), Vec::new()];
                for _ in 0..rounds {
                    gaps[0].push(gap(megabytes, dirties, mode, true));
                    gaps[1].push(gap(megabytes, dirties, mode, false));
                }
                let [ferry, hand] = gaps.map(|mut gaps| {
                    gaps.sort();
                    gaps[gaps.len() / 2].as_millis()
                });
                let dirtied = if dirties.is_empty() { "idle".to_owned() } else { format!("{dirties} MB/s") };
                println!("| {megabytes} MB | {dirtied} | {mode} | {ferry} ms | {hand} ms |");
            }
        }
    }
}
