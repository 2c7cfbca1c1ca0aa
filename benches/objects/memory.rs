//! How much memory a sync of very many objects takes while it lists and compares them: a plot.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::peers::{self, Entrant, Tool};
use super::place::End;
use super::say;

/// Show how much memory a listing of many objects takes
#[derive(Debug, clap::Args)]
pub struct Memory {
    /// How many objects both sides have
    #[arg(long, default_value_t = 10_000_000)]
    count: u64,
    /// Milliseconds before each answer
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// Where to draw it, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// How often the process is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// Runs ferry and looks at it.
pub fn run(memory: &Memory) -> Result<(), String> {
    let (source, target) =
        (End::numbered(true, memory.count, memory.latency)?, End::numbered(false, memory.count, memory.latency)?);
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let entrant = Entrant { tool: Tool::Ferry, label: "ferry".to_owned(), flags: Vec::new(), is_variant: false };
    let command = peers::command(&entrant, false, &source.place, &target.place, scratch.path());
    let mut command = command.map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut child = command
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut seen = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        seen.extend(resident(child.id()).map(|megabytes| (started.elapsed().as_secs_f64(), megabytes)));
        std::thread::sleep(EVERY);
    };
    if !status.success() {
        return Err(format!("{command:?} failed: {status}"));
    }
    let took = started.elapsed().as_secs_f64();
    let most = seen.iter().map(|(_, megabytes)| *megabytes).fold(0.0, f64::max);
    let count = grouped(memory.count);
    say(&format!("{count} objects on both sides, none to copy: {took:.1} s, at most {most:.0} MB"));
    if let Some(plot) = &memory.plot {
        let title = format!("ferry sync, {count} unchanged objects: resident memory");
        std::fs::write(plot, svg(&title, &seen, most)).map_err(|error| format!("{}: {error}", plot.display()))?;
    }
    Ok(())
}

/// The resident set of a process in MB.
fn resident(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0 / 1e6)
}

fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A line over time, on a scale that ends at the aim of 150 MB or above the highest point.
fn svg(title: &str, seen: &[(f64, f64)], most: f64) -> String {
    let (width, height, left, top) = (760.0, 300.0, 70.0, 50.0);
    let end = seen.last().map_or(1.0, |(at, _)| at.max(0.1));
    let scale = most.max(150.0) * 1.1;
    let x = |at: f64| left + at / end * width;
    let y = |megabytes: f64| top + height - megabytes / scale * height;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 410\" font-family=\"sans-serif\" font-size=\"13\">\n\
        <rect width=\"860\" height=\"410\" fill=\"white\"/>\n<text x=\"{left}\" y=\"28\" font-size=\"16\">{title}</text>\n"
    );
    for megabytes in (0..).map(|step| f64::from(step) * 50.0).take_while(|megabytes| *megabytes <= scale) {
        let (at, from, to) = (y(megabytes), left, left + width);
        let color = if (megabytes - 150.0).abs() < 1.0 { "#c00" } else { "#ddd" };
        let _ = writeln!(text, "<line x1=\"{from}\" y1=\"{at:.1}\" x2=\"{to}\" y2=\"{at:.1}\" stroke=\"{color}\"/>");
        let _ = writeln!(text, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{megabytes} MB</text>", left - 8.0, at + 4.0);
    }
    for step in 0..=5 {
        let at = end * f64::from(step) / 5.0;
        let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{at:.0} s</text>", x(at), top + height + 22.0);
    }
    let points: Vec<String> = seen.iter().map(|(at, megabytes)| format!("{:.1},{:.1}", x(*at), y(*megabytes))).collect();
    let _ = writeln!(text, "<polyline points=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>", points.join(" "));
    text.push_str("</svg>\n");
    text
}
