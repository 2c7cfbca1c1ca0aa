//! The DAG in Mermaid, for Markdown pages.

use std::fmt::Write as _;

use super::nested::{Part, parts};
use super::net::{Net, Node};
use super::{FILLS, States, class_of};
use crate::engine::Definition;

/// A Mermaid flowchart.
pub fn mermaid(definition: &Definition, states: &States) -> String {
    let net = Net::of(definition);
    let mut out = String::from("flowchart TD\n");
    for (indent, part) in parts(&net) {
        let _ = match part {
            Part::Step(index) => writeln!(out, "{indent}n{index}{}", shape(&net.nodes[index], states)),
            Part::Open(index) => writeln!(out, "{indent}subgraph f{index}[\"{}\"]", escaped(&net.frames[index].title())),
            Part::OpenFinally => writeln!(out, "{indent}subgraph finally"),
            Part::Close => writeln!(out, "{indent}end"),
            Part::Need(from, to) => writeln!(out, "{indent}n{from} --> n{to}"),
            Part::Until(from, to) => writeln!(out, "{indent}n{from} -. until .-> n{to}"),
        };
    }
    out.push_str("  classDef pivot stroke:#d97706,stroke-width:3px\n");
    for (class, fill) in FILLS {
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

/// What stands behind a node's number: its label in brackets of its kind, and the class of its state.
fn shape(node: &Node, states: &States) -> String {
    let (open, close) = match node {
        node if node.is_approval => ("{{", "}}"),
        node if node.is_pivot => ("[[", "]]"),
        node if node.until_id.is_some() => ("([", "])"),
        _ => ("[", "]"),
    };
    let class = states.get(&node.path).map_or(String::new(), |state| match class_of(*state) {
        "pending" => String::new(),
        class => format!(":::{class}"),
    });
    let lines: Vec<String> = node.lines().iter().map(|line| escaped(line)).collect();
    let (path, rest) = lines.split_first().map_or(("", [].as_slice()), |(path, rest)| (path.as_str(), rest));
    let label = std::iter::once(format!("<b>{path}</b>")).chain(rest.iter().cloned()).collect::<Vec<_>>().join("<br/>");
    format!("{open}\"{label}\"{close}{class}")
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
