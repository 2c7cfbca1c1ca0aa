//! The DAG in Mermaid, for Markdown pages.

use std::fmt::Write as _;

use super::net::{Half, Net};
use super::{States, class_of};
use crate::engine::Definition;

/// A Mermaid flowchart.
pub fn mermaid(definition: &Definition, states: &States) -> String {
    let net = Net::of(definition);
    let mut out = String::from("flowchart TD\n");
    list(&net, states, None, 1, &mut out);
    if net.nodes.iter().any(|node| node.half == Half::Finally) {
        out.push_str("  subgraph finally\n");
        for (index, node) in net.nodes.iter().enumerate() {
            if node.half == Half::Finally && node.frame.is_none() {
                line(&net, states, index, 2, &mut out);
            }
        }
        out.push_str("  end\n");
    }
    for (index, node) in net.nodes.iter().enumerate() {
        for need in &node.needs {
            let _ = writeln!(out, "  n{need} --> n{index}");
        }
        if let Some(until) = node.until {
            let _ = writeln!(out, "  n{index} -. until .-> n{until}");
        }
    }
    out.push_str("  classDef pivot stroke:#d97706,stroke-width:3px\n");
    for (class, fill) in [
        ("succeeded", "#bbf7d0"),
        ("failed", "#fecaca"),
        ("running", "#bae6fd"),
        ("waits", "#fde68a"),
        ("undone", "#e9d5ff"),
        ("skipped", "#e5e7eb"),
    ] {
        if states.values().any(|state| class_of(*state) == class) {
            let _ = writeln!(out, "  classDef {class} fill:{fill},color:#111827");
        }
    }
    let pivots: Vec<String> =
        (0..net.nodes.len()).filter(|&node| net.nodes[node].is_pivot).map(|node| format!("n{node}")).collect();
    if !pivots.is_empty() {
        let _ = writeln!(out, "  class {} pivot", pivots.join(","));
    }
    out
}

/// The steps directly inside a frame, then the frames inside it.
fn list(net: &Net, states: &States, frame: Option<usize>, depth: usize, out: &mut String) {
    for (index, node) in net.nodes.iter().enumerate() {
        if node.frame == frame && (node.half != Half::Finally || frame.is_some()) {
            line(net, states, index, depth, out);
        }
    }
    let indent = "  ".repeat(depth);
    for (index, inner) in net.frames.iter().enumerate() {
        if inner.parent == frame {
            let each = if inner.is_each { ", for each" } else { "" };
            let _ = writeln!(out, "{indent}subgraph f{index}[\"{} ({}{each})\"]", escaped(&inner.path), escaped(&inner.uses));
            list(net, states, Some(index), depth + 1, out);
            let _ = writeln!(out, "{indent}end");
        }
    }
}

fn line(net: &Net, states: &States, index: usize, depth: usize, out: &mut String) {
    let node = &net.nodes[index];
    let (open, close) = match node {
        node if node.is_approval => ("{{", "}}"),
        node if node.is_pivot => ("[[", "]]"),
        node if node.until_id.is_some() => ("([", "])"),
        _ => ("[", "]"),
    };
    let tags = node.tags();
    let tags = if tags.is_empty() { String::new() } else { format!("<br/>{}", escaped(&tags.join(", "))) };
    let class = states.get(&node.path).map_or(String::new(), |state| match class_of(*state) {
        "pending" => String::new(),
        class => format!(":::{class}"),
    });
    let _ = writeln!(
        out,
        "{}n{index}{open}\"<b>{}</b><br/>{}{tags}\"{close}{class}",
        "  ".repeat(depth),
        escaped(&node.path),
        escaped(&node.uses)
    );
}

/// Mermaid's own entities; what would end the label or the line is taken out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("#quot;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '#' => out.push_str("#35;"),
            '&' => out.push_str("#amp;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}
