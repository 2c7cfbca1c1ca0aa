//! The walk that the nesting formats share: each pipeline with the steps inside it, `finally`, then the edges.

use super::net::{Half, Net};

/// A line of such a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// This node.
    Step(usize),
    /// This frame begins.
    Open(usize),
    /// The frame around `finally` begins.
    OpenFinally,
    /// The innermost frame ends.
    Close,
    /// The second node needs the first.
    Need(usize, usize),
    /// The first node runs in the background until the second.
    Until(usize, usize),
}

/// The parts in their order, each with the white space in front of it.
pub(super) fn parts(net: &Net) -> Vec<(String, Part)> {
    let mut parts = Vec::new();
    list(net, None, false, 1, &mut parts);
    if net.nodes.iter().any(|node| node.half == Half::Finally) {
        parts.push((indent(1), Part::OpenFinally));
        list(net, None, true, 2, &mut parts);
        parts.push((indent(1), Part::Close));
    }
    for (index, node) in net.nodes.iter().enumerate() {
        parts.extend(node.needs.iter().map(|&need| (indent(1), Part::Need(need, index))));
        parts.extend(node.until.map(|until| (indent(1), Part::Until(index, until))));
    }
    parts
}

/// The steps directly inside a frame, then the frames inside it.
fn list(net: &Net, frame: Option<usize>, is_finally: bool, depth: usize, parts: &mut Vec<(String, Part)>) {
    for (index, node) in net.nodes.iter().enumerate() {
        if node.frame == frame && (node.half == Half::Finally) == is_finally {
            parts.push((indent(depth), Part::Step(index)));
        }
    }
    for (index, inner) in net.frames.iter().enumerate() {
        if inner.parent == frame && inner.is_finally == is_finally {
            parts.push((indent(depth), Part::Open(index)));
            list(net, Some(index), is_finally, depth + 1, parts);
            parts.push((indent(depth), Part::Close));
        }
    }
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}
