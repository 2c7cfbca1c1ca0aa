//! The DAG in DOT, for Graphviz.

use std::fmt::Write as _;

use super::net::{Half, Net};
use super::{States, class_of};
use crate::engine::Definition;

/// A DOT digraph.
pub fn dot(definition: &Definition, states: &States) -> String {
    let net = Net::of(definition);
    let mut out = format!("digraph {} {{\n", quoted(&definition.name));
    out.push_str("  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"];\n");
    list(&net, states, None, 1, &mut out);
    if net.nodes.iter().any(|node| node.half == Half::Finally) {
        out.push_str("  subgraph cluster_finally {\n    label=\"finally\";\n    style=dashed;\n");
        for (index, node) in net.nodes.iter().enumerate() {
            if node.half == Half::Finally && node.frame.is_none() {
                line(&net, states, index, 2, &mut out);
            }
        }
        out.push_str("  }\n");
    }
    for (index, node) in net.nodes.iter().enumerate() {
        for need in &node.needs {
            let _ = writeln!(out, "  n{need} -> n{index};");
        }
        if let Some(until) = node.until {
            let _ = writeln!(out, "  n{index} -> n{until} [style=dashed, label=\"until\", constraint=false];");
        }
    }
    out.push_str("}\n");
    out
}

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
            let _ = writeln!(out, "{indent}subgraph cluster_{index} {{");
            let _ = writeln!(out, "{indent}  label={};", quoted(&format!("{} ({}{each})", inner.path, inner.uses)));
            list(net, states, Some(index), depth + 1, out);
            let _ = writeln!(out, "{indent}}}");
        }
    }
}

fn line(net: &Net, states: &States, index: usize, depth: usize, out: &mut String) {
    let node = &net.nodes[index];
    let mut label = format!("{}\n{}", node.path, node.uses);
    let tags = node.tags();
    if !tags.is_empty() {
        let _ = write!(label, "\n{}", tags.join(", "));
    }
    let mut attributes = format!("label={}", quoted(&label));
    if node.is_pivot {
        attributes.push_str(", color=\"#d97706\", penwidth=3");
    }
    if node.is_approval {
        attributes.push_str(", shape=hexagon");
    }
    if let Some(fill) = states.get(&node.path).and_then(|state| fill(class_of(*state))) {
        let _ = write!(attributes, ", fillcolor=\"{fill}\"");
    }
    let _ = writeln!(out, "{}n{index} [{attributes}];", "  ".repeat(depth));
}

fn fill(class: &str) -> Option<&'static str> {
    Some(match class {
        "succeeded" => "#bbf7d0",
        "failed" => "#fecaca",
        "running" => "#bae6fd",
        "waits" => "#fde68a",
        "undone" => "#e9d5ff",
        "skipped" => "#e5e7eb",
        _ => return None,
    })
}

/// A DOT string. A backslash before anything else would be an escape of Graphviz.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
