//! The DAG as an SVG that stands alone: no script, no font and no file of others, light and dark.

use std::fmt::Write as _;

use super::layout::layout;
use super::net::{Half, Net, Node};
use super::{States, class_of};
use crate::engine::Definition;
use crate::report::escape::escaped;
use crate::report::style::{state_sign, state_word};
use crate::report::telling::shortened;

const HEIGHT: f64 = 46.0;
const RANK_GAP: f64 = 40.0;
const NODE_GAP: f64 = 26.0;
const MARGIN: f64 = 24.0;
/// The room that a line across the drawing takes.
const BAND: f64 = 44.0;

/// Columns of a step's name; a box that is wider moves all others away.
const LONGEST_NAME: usize = 40;

const STYLE: &str = "
.dag{--ink:#1f2933;--soft:#66727f;--paper:#ffffff;--box:#f8fafc;--edge:#94a3b8;--rim:#cbd5e1;--ok:#15803d;--okbg:#dcfce7;--bad:#b91c1c;--badbg:#fee2e2;--run:#0369a1;--runbg:#e0f2fe;--wait:#a16207;--waitbg:#fef3c7;--undo:#7e22ce;--undobg:#f3e8ff;--pivot:#d97706}
@media (prefers-color-scheme:dark){.dag{--ink:#e5e9ee;--soft:#9aa7b5;--paper:#12171d;--box:#1b222b;--edge:#64748b;--rim:#3b4754;--ok:#4ade80;--okbg:#12301f;--bad:#f87171;--badbg:#3a1717;--run:#38bdf8;--runbg:#0f2a3a;--wait:#fbbf24;--waitbg:#33270c;--undo:#c084fc;--undobg:#2b1a3d;--pivot:#f59e0b}}
.dag text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:var(--ink)}
.dag .id{font-size:13px;font-weight:600}.dag .uses{font-size:11px;fill:var(--soft)}.dag .word{font-size:12px;fill:var(--soft);stroke:var(--paper);stroke-width:5;stroke-linejoin:round;paint-order:stroke}
.dag rect.box{fill:var(--box);stroke:var(--rim);stroke-width:1.2}
.dag .edge{fill:none;stroke:var(--edge);stroke-width:1.4}.dag .tip{fill:var(--edge)}.dag .until{stroke-dasharray:3 4}
.dag .rule{stroke:var(--pivot);stroke-width:1.4;stroke-dasharray:7 5}.dag .rule.end{stroke:var(--rim)}
.dag .succeeded rect.box{fill:var(--okbg);stroke:var(--ok)}.dag .succeeded .sign{fill:var(--ok)}
.dag .failed rect.box{fill:var(--badbg);stroke:var(--bad);stroke-width:2}.dag .failed .sign{fill:var(--bad)}
.dag .running rect.box{fill:var(--runbg);stroke:var(--run);stroke-width:2}.dag .running .sign{fill:var(--run)}
.dag .waits rect.box{fill:var(--waitbg);stroke:var(--wait)}.dag .waits .sign{fill:var(--wait)}
.dag .undone rect.box{fill:var(--undobg);stroke:var(--undo)}.dag .undone .sign{fill:var(--undo)}
.dag .skipped rect.box{stroke-dasharray:4 3}.dag .skipped text{fill:var(--soft)}
.dag rect.pivot{fill:none;stroke:var(--pivot);stroke-width:2}
";

/// The DAG, top down, the two halves around the pivot one above the other, `finally` below.
pub fn svg(definition: &Definition, states: &States) -> String {
    let net = Net::of(definition);
    let ranks = ranks(&net);
    let widths: Vec<f64> = net.nodes.iter().map(box_width).collect();
    let edges: Vec<(usize, usize)> =
        net.nodes.iter().enumerate().flat_map(|(node, it)| it.needs.iter().map(move |&need| (need, node))).collect();
    let placed = layout(&widths, &ranks.of, &edges, NODE_GAP);

    let words = [
        (ranks.after, "pivot: until here a run can go back, from here on it goes forward", "rule"),
        (ranks.finally, "finally: whatever the outcome", "rule end"),
    ];
    // Where each rank stands: a band across the drawing moves everything below it.
    let bands =
        |rank: usize| words.iter().filter(|(first, _, _)| first.is_some_and(|first| first <= rank && first > 0)).count() as f64;
    let top = |rank: usize| MARGIN + rank as f64 * (HEIGHT + RANK_GAP) + bands(rank) * BAND;
    let ruled: f64 = words
        .iter()
        .filter(|(first, _, _)| first.is_some_and(|first| first > 0))
        .map(|(_, words, _)| text_width(words, 7.3))
        .fold(0.0, f64::max);
    let inner = placed.width.max(ruled + 20.0);
    let shift = MARGIN + (inner - placed.width) / 2.0;
    let width = inner + 2.0 * MARGIN;
    let height = ranks.of.iter().max().map_or(2.0 * MARGIN, |&last| top(last) + HEIGHT + MARGIN);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"dag\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"steps of {}\">\n<style>{STYLE}</style>\n<defs><marker id=\"dag-tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path class=\"tip\" d=\"M0 .8 8 4 0 7.2z\"/></marker></defs>\n<rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\n",
        escaped(&definition.name)
    );
    for (edge, &(from, to)) in edges.iter().enumerate() {
        let mut points = vec![(shift + placed.x[from], top(ranks.of[from]) + HEIGHT)];
        for (crossed, &x) in placed.bends[edge].iter().enumerate() {
            let y = top(ranks.of[from] + 1 + crossed);
            points.push((shift + x, y));
            points.push((shift + x, y + HEIGHT));
        }
        points.push((shift + placed.x[to], top(ranks.of[to]) - 1.0));
        let _ = writeln!(out, "<path class=\"edge\" marker-end=\"url(#dag-tip)\" d=\"{}\"/>", curve(&points));
    }
    for (first, words, class) in words {
        let Some(first) = first.filter(|&first| first > 0) else { continue };
        let y = top(first) - RANK_GAP / 2.0 - BAND / 2.0 + 4.0;
        let _ = writeln!(
            out,
            "<line class=\"{class}\" x1=\"{MARGIN}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"word\" x=\"{MARGIN}\" y=\"{:.1}\">{words}</text>",
            width - MARGIN,
            y - 7.0
        );
    }
    for (node, it) in net.nodes.iter().enumerate() {
        draw(it, states, (shift + placed.x[node], top(ranks.of[node])), widths[node], &mut out);
    }
    out.push_str("</svg>\n");
    out
}

/// A path through points: straight through boxes' ranks, curved between them.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (at, &(x, y)) in points.iter().enumerate() {
        let _ = match at.checked_sub(1).map(|before| points[before]) {
            None => write!(path, "M{x:.1} {y:.1}"),
            Some((from, _)) if (from - x).abs() < 0.05 => write!(path, "L{x:.1} {y:.1}"),
            Some((from, above)) => {
                let middle = f64::midpoint(above, y);
                write!(path, "C{from:.1} {middle:.1} {x:.1} {middle:.1} {x:.1} {y:.1}")
            }
        };
    }
    path
}

fn draw(node: &Node, states: &States, (x, y): (f64, f64), width: f64, out: &mut String) {
    let state = states.get(&node.path).copied();
    let class = state.map_or("pending", class_of);
    let left = x - width / 2.0;
    let tags = node.tags();
    let state_word = state.map(|state| state_word(state).to_owned());
    let title = [Some(node.path.clone()), node.name.clone(), Some(node.uses.clone()), state_word]
        .into_iter()
        .flatten()
        .chain(tags.iter().cloned())
        .collect::<Vec<_>>()
        .join(" · ");
    let radius = if node.is_approval { HEIGHT / 2.0 } else { 8.0 };
    let _ = write!(
        out,
        "<g class=\"{class}\"><title>{}</title><rect class=\"box\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" rx=\"{radius}\"/>",
        escaped(&title)
    );
    if node.is_pivot {
        let _ = write!(
            out,
            "<rect class=\"pivot\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"{:.1}\"/>",
            left - 4.0,
            y - 4.0,
            width + 8.0,
            HEIGHT + 8.0,
            radius + 4.0
        );
    }
    let sign = state.map_or(String::new(), |state| format!("<tspan class=\"sign\">{} </tspan>", state_sign(state).0));
    let _ = writeln!(
        out,
        "<text class=\"id\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{sign}{}</text><text class=\"uses\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></g>",
        y + 20.0,
        escaped(&node.path),
        y + 36.0,
        escaped(&second_line(node))
    );
}

fn second_line(node: &Node) -> String {
    let mut line = match &node.name {
        // The whole of a long one is in the title.
        Some(name) => format!("{} · {}", shortened(name, LONGEST_NAME), node.uses),
        None => node.uses.clone(),
    };
    for tag in node.tags().iter().filter(|tag| *tag != "pivot" && *tag != "pivot inside") {
        line.push_str(" · ");
        line.push_str(tag);
    }
    line
}

fn text_width(text: &str, column: f64) -> f64 {
    console::measure_text_width(text) as f64 * column
}

fn box_width(node: &Node) -> f64 {
    (text_width(&node.path, 8.0) + 44.0).max(text_width(&second_line(node), 6.7) + 28.0).max(90.0)
}

struct Ranks {
    of: Vec<usize>,
    /// The first rank behind the pivot.
    after: Option<usize>,
    /// The first rank of `finally`.
    finally: Option<usize>,
}

/// The longest way to each node. Each half begins below everything of the one before it.
fn ranks(net: &Net) -> Ranks {
    let mut of = vec![0; net.nodes.len()];
    let (mut last, mut base, mut half) = (0, 0, Half::Before);
    let mut ranks = Ranks { of: Vec::new(), after: None, finally: None };
    for (position, node) in net.order().into_iter().enumerate() {
        let it = &net.nodes[node];
        if it.half != half {
            half = it.half;
            base = if position == 0 { 0 } else { last + 1 };
            if half == Half::After { ranks.after = Some(base) } else { ranks.finally = Some(base) }
        }
        of[node] = it.needs.iter().map(|&need| of[need] + 1).max().unwrap_or(0).max(base);
        last = last.max(of[node]);
    }
    ranks.of = of;
    ranks
}
