//! The table: medians, and ratios to rclone in the same rounds.

use std::fmt::Write as _;

use super::jobs::Job;
use super::peers::Tool;
use super::rounds::Runs;

/// The head of the table.
pub const HEAD: &str = "| job | tool | wall s | CPU s | peak MB | wall, CPU and memory / rclone | servers' CPU s | runs | flags |\n\
    | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";

/// The rows of one job.
pub fn rows(job: &Job, all: &[Runs]) -> String {
    let measures =
        |runs: &Runs| [runs.median(|(used, _)| used.wall), runs.median(|(used, _)| used.cpu), runs.median(|(used, _)| used.peak)];
    // Where rclone has several ways, a ratio to each, in the order of its rows.
    let peers: Vec<[f64; 3]> = all.iter().filter(|runs| runs.entrant.tool == Tool::Rclone).map(measures).collect();
    let mut text = String::new();
    for runs in all {
        let ours = measures(runs);
        let ratios: Vec<String> = peers
            .iter()
            .map(|theirs| format!("{:.2}, {:.2}, {:.2}", ours[0] / theirs[0], ours[1] / theirs[1], ours[2] / theirs[2]))
            .collect();
        let servers = runs.median(|(_, servers)| *servers);
        let flags = if runs.entrant.flags.is_empty() { String::new() } else { format!("`{}`", runs.entrant.flags.join(" ")) };
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {:.0} | {} | {servers:.2} | {} | {flags} |",
            job.title,
            runs.entrant.label,
            ours[0],
            ours[1],
            ours[2],
            ratios.join("; "),
            runs.used.len()
        );
    }
    text
}
