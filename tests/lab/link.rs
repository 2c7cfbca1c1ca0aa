//! Bad links: delay, rate and loss between a host and the rest of its lab, without the kernel's packet schedulers.
//!
//! A pair of TAP devices takes the place of the host's cable: one is the host's `eth0`, the other a port of the bridge.
//! Threads of the test carry every frame from one to the other, late, slowly, or not at all.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// What a link does to what it carries, each way.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// How long a frame is under way.
    pub delay: Duration,
    /// Bits in a second; as many as there are when it is nothing.
    pub rate: Option<u64>,
    /// Which part of the frames is lost: 0.01 is one in a hundred.
    pub loss: f64,
    /// How long a frame may wait for its turn; one that would wait longer is dropped, as a full queue does.
    pub queue: Duration,
}

impl Default for Weather {
    fn default() -> Self {
        Self { delay: Duration::ZERO, rate: None, loss: 0.0, queue: Duration::from_millis(200) }
    }
}

/// A link that is carried by threads of the test. It may change while it is used.
pub struct Link {
    weather: Arc<Mutex<Weather>>,
}

impl Link {
    /// Puts the devices into the network of the process `pid` (as `eth0`) and into this thread's (as `port`). Addresses
    /// and the bridge are the caller's.
    pub fn new(pid: u32, port: &str) -> Self {
        let inner = thread::spawn(move || {
            let network = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the host runs");
            setns(network, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            device("eth0")
        });
        let inner = Arc::new(inner.join().expect("the device is made"));
        let outer = Arc::new(device(port));
        let weather: Arc<Mutex<Weather>> = Arc::default();
        for (from, to) in [(inner.clone(), outer.clone()), (outer, inner)] {
            let (late, due) = channel();
            let weather = weather.clone();
            thread::spawn(move || take(&from, &weather, &late));
            thread::spawn(move || give(&due, &to));
        }
        Self { weather }
    }

    /// From now on it is so.
    pub fn is(&self, weather: Weather) {
        *self.weather.lock().expect("not poisoned") = weather;
    }
}

fn device(name: &str) -> SyncDevice {
    let device = DeviceBuilder::new().name(name).layer(Layer::L2).enable(false).build_sync();
    device.expect("a TAP device: the lab needs /dev/net/tun")
}

/// Takes frames in and says when each is due, in order.
fn take(from: &SyncDevice, weather: &Mutex<Weather>, late: &Sender<(Instant, Vec<u8>)>) {
    let mut frame = vec![0; 65_536];
    let mut free = Instant::now();
    loop {
        let Ok(length) = from.recv(&mut frame) else {
            // A device that is down, for a moment or for good.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let now = Instant::now();
        let Weather { delay, rate, loss, queue } = *weather.lock().expect("not poisoned");
        if loss > 0.0 && rand::random::<f64>() < loss {
            continue;
        }
        free = free.max(now);
        if free - now > queue {
            continue;
        }
        if let Some(rate) = rate {
            free += Duration::from_nanos(length as u64 * 8 * 1_000_000_000 / rate.max(1));
        }
        if late.send((free + delay, frame[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn give(due: &Receiver<(Instant, Vec<u8>)>, to: &SyncDevice) {
    while let Ok((at, frame)) = due.recv() {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // A device that is down loses what it is given.
        let _ = to.send(&frame);
    }
}
