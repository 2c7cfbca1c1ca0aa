//! The DAG in DOT, for Graphviz.

use std::fmt::Write as _;

use super::nested::{Part, parts};
use super::net::{Net, Node};
use super::{FILLS, States, class_of};
use crate::engine::Definition;

/// A DOT digraph.
pub fn dot(definition: &Definition, states: &States) -> String {
    let net = Net::of(definition);
    let mut out = format!("digraph {} {{\n", quoted(&definition.name));
    out.push_str("  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"];\n");
    for (indent, part) in parts(&net) {
        let _ = match part {
            Part::Step(index) => writeln!(out, "{indent}n{index} [{}];", attributes(&net.nodes[index], states)),
            Part::Open(index) => {
                let title = quoted(&net.frames[index].title());
                writeln!(out, "{indent}subgraph cluster_{index} {{\n{indent}  label={title};")
            }
            Part::OpenFinally => {
                writeln!(out, "{indent}subgraph cluster_finally {{\n{indent}  label=\"finally\";\n{indent}  style=dashed;")
            }
            Part::Close => writeln!(out, "{indent}}}"),
            Part::Need(from, to) => writeln!(out, "{indent}n{from} -> n{to};"),
            Part::Until(from, to) => {
                writeln!(out, "{indent}n{from} -> n{to} [style=dashed, label=\"until\", constraint=false];")
            }
        };
    }
    out.push_str("}\n");
    out
}

fn attributes(node: &Node, states: &States) -> String {
    let mut attributes = format!("label={}", quoted(&node.lines().join("\n")));
    if node.is_pivot {
        attributes.push_str(", color=\"#d97706\", penwidth=3");
    }
    if node.is_approval {
        attributes.push_str(", shape=hexagon");
    }
    let class = states.get(&node.path).map(|state| class_of(*state));
    if let Some((_, fill)) = FILLS.iter().find(|(name, _)| Some(*name) == class) {
        let _ = write!(attributes, ", fillcolor=\"{fill}\"");
    }
    attributes
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
