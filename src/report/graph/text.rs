//! The DAG in a terminal: one line for each step, and rails beside them that run from what is needed to what needs it.

use std::fmt::Write as _;

use super::States;
use super::net::{Half, Net, Node};
use crate::engine::Definition;
use crate::report::Style;
use crate::report::style::{Tone, padded, state_sign, state_tone, state_word};

/// With more rails than this, the rest is told in words.
const MOST_RAILS: usize = 24;

/// The DAG, top down. Needs that another need implies are not drawn.
pub fn text(definition: &Definition, states: &States, style: Style) -> String {
    let net = Net::of(definition);
    let lines = Rails::draw(&net, style);
    let rails = lines.iter().map(Line::width).max().unwrap_or(0);
    let columns =
        |of: &dyn Fn(&Node) -> &str| net.nodes.iter().map(|node| console::measure_text_width(of(node))).max().unwrap_or(0);
    let (ids, types) = (columns(&|node| &node.path), columns(&|node| &node.uses));

    let mut out = format!("{}\n\n", style.paint(Tone::Strong, &definition.name));
    let mut half = Half::Before;
    for line in &lines {
        let drawn = |cells: &str| padded(&style.paint(Tone::Faint, cells), rails);
        let Some(node) = line.node else {
            let _ = writeln!(out, "{}", style.paint(Tone::Faint, &line.cells).trim_end());
            continue;
        };
        let step = &net.nodes[node];
        if step.half != half {
            half = step.half;
            let words = if half == Half::After {
                "pivot: until here a run can go back, from here on it goes forward"
            } else {
                "finally: whatever the outcome"
            };
            let rule = style.sign("━━", "==");
            let _ = writeln!(out, "{} {}", drawn(&line.above), style.paint(Tone::Warn, &format!("{rule} {words} {rule}")));
        }
        let (sign, tone) = match states.get(&step.path) {
            Some(&state) => {
                let (unicode, ascii) = state_sign(state);
                (style.sign(unicode, ascii), state_tone(state))
            }
            None if step.is_pivot => (style.sign("◆", "*"), Tone::Warn),
            None if step.is_approval => (style.sign("◇", "?"), Tone::Plain),
            None if step.until_id.is_some() => (style.sign("◎", "@"), Tone::Plain),
            None => (style.sign("○", "o"), Tone::Plain),
        };
        // The cells hold a placeholder where the node's own sign goes.
        let (left, right) = line.cells.split_once(NODE).unwrap_or((&line.cells, ""));
        let cells = format!("{}{}{}", style.paint(Tone::Faint, left), style.paint(tone, sign), style.paint(Tone::Faint, right));
        let mut tags: Vec<String> = step.name.clone().into_iter().chain(step.tags()).collect();
        if let Some(&state) = states.get(&step.path) {
            tags.insert(0, state_word(state).to_owned());
        }
        if !line.hidden.is_empty() {
            let names: Vec<&str> = line.hidden.iter().map(|&need| net.nodes[need].path.as_str()).collect();
            tags.push(format!("after {}", names.join(", ")));
        }
        let undo = if step.is_undoable() && half == Half::Before { style.sign("↩", "u") } else { " " };
        let _ = writeln!(
            out,
            "{}",
            format!(
                "{} {}  {}  {undo} {}",
                padded(&cells, rails),
                style.paint(if step.is_pivot { Tone::Warn } else { Tone::Strong }, &padded(&step.path, ids)),
                style.paint(Tone::Faint, &padded(&step.uses, types)),
                tags.join(", ")
            )
            .trim_end()
        );
    }
    let undoable = net.nodes.iter().filter(|node| node.half == Half::Before && node.is_undoable()).count();
    if undoable > 0 {
        let _ = writeln!(out, "\n{}", style.paint(Tone::Faint, &format!("{} a rollback puts it back", style.sign("↩", "u"))));
    }
    out
}

/// Stands for the sign of the node.
const NODE: char = '\u{0}';

/// A line of the drawing.
struct Line {
    cells: String,
    node: Option<usize>,
    /// The rails that run into this line: what a line drawn above it shows.
    above: String,
    /// Needs whose rails found no place.
    hidden: Vec<usize>,
}

impl Line {
    fn width(&self) -> usize {
        self.cells.chars().count()
    }
}

/// The rails between lines. Each leads to one node that is still to come.
struct Rails {
    columns: Vec<Option<usize>>,
    unicode: bool,
}

impl Rails {
    fn draw(net: &Net, style: Style) -> Vec<Line> {
        let needs = net.reduced_needs();
        let mut dependants = vec![Vec::new(); net.nodes.len()];
        for (node, needs) in needs.iter().enumerate() {
            for &need in needs {
                dependants[need].push(node);
            }
        }
        let mut rails = Self { columns: Vec::new(), unicode: style.unicode };
        let mut hidden = vec![Vec::new(); net.nodes.len()];
        let mut lines = Vec::new();
        for node in net.order() {
            let above = rails.straight(None);
            let column = rails.place(node);
            lines.push(Line {
                cells: rails.straight(Some(column)),
                node: Some(node),
                above,
                hidden: std::mem::take(&mut hidden[node]),
            });
            rails.columns[column] = None;
            let (connections, unplaced) = rails.connect(column, &dependants[node]);
            for target in unplaced {
                hidden[target].push(node);
            }
            if connections.iter().any(|connection| connection.0 != column) {
                lines.push(Line {
                    cells: rails.turns(column, &connections),
                    node: None,
                    above: String::new(),
                    hidden: Vec::new(),
                });
            }
            while rails.columns.last().is_some_and(Option::is_none) {
                rails.columns.pop();
            }
        }
        lines
    }

    /// The column of the rail that leads to this node, or a free one.
    fn place(&mut self, node: usize) -> usize {
        if let Some(column) = self.columns.iter().position(|rail| *rail == Some(node)) {
            return column;
        }
        let column = self.free(0).unwrap_or(self.columns.len());
        if column == self.columns.len() {
            self.columns.push(None);
        }
        self.columns[column] = Some(node);
        column
    }

    fn free(&self, from: usize) -> Option<usize> {
        (from..self.columns.len()).find(|&column| self.columns[column].is_none())
    }

    /// Leads rails from a column to these nodes. Gives the columns they are in and whether each is new, and the nodes
    /// for which there was no place.
    fn connect(&mut self, from: usize, targets: &[usize]) -> (Vec<(usize, bool)>, Vec<usize>) {
        let mut connections = Vec::new();
        let mut unplaced = Vec::new();
        for &target in targets {
            if let Some(column) = self.columns.iter().position(|rail| *rail == Some(target)) {
                connections.push((column, false));
                continue;
            }
            let column = self.free(from).or_else(|| self.free(0)).unwrap_or(self.columns.len());
            if column >= MOST_RAILS {
                unplaced.push(target);
                continue;
            }
            if column == self.columns.len() {
                self.columns.push(None);
            }
            self.columns[column] = Some(target);
            connections.push((column, true));
        }
        (connections, unplaced)
    }

    /// A line on which every rail goes straight on.
    fn straight(&self, node: Option<usize>) -> String {
        let mut cells = String::new();
        for (column, rail) in self.columns.iter().enumerate() {
            if column > 0 {
                cells.push(' ');
            }
            cells.push(match rail {
                _ if node == Some(column) => NODE,
                Some(_) => self.sign('│'),
                None => ' ',
            });
        }
        cells.trim_end_matches(' ').to_owned()
    }

    /// A line on which the rails of one node turn to their columns.
    fn turns(&self, from: usize, connections: &[(usize, bool)]) -> String {
        let goes_on = connections.iter().any(|connection| connection.0 == from);
        let least = connections.iter().map(|connection| connection.0).min().unwrap_or(from).min(from);
        let most = connections.iter().map(|connection| connection.0).max().unwrap_or(from).max(from);
        let mut cells = String::new();
        for (column, rail) in self.columns.iter().enumerate() {
            if column > 0 {
                cells.push(if column > least && column <= most { self.sign('─') } else { ' ' });
            }
            let (left, right) = (column > least, column < most);
            let connection = connections.iter().find(|connection| connection.0 == column);
            let sign = if column == from {
                match (left, right, goes_on) {
                    (true, true, true) => '┼',
                    (true, true, false) => '┴',
                    (false, true, true) => '├',
                    (false, true, false) => '╰',
                    (true, false, true) => '┤',
                    (true, false, false) => '╯',
                    (false, false, _) => '│',
                }
            } else if let Some(&(_, is_new)) = connection {
                match (is_new, left, right) {
                    (true, true, true) => '┬',
                    (true, true, false) => '╮',
                    (true, false, _) => '╭',
                    (false, true, true) => '┼',
                    (false, true, false) => '┤',
                    (false, false, _) => '├',
                }
            } else if rail.is_some() {
                '│'
            } else if left && right {
                '─'
            } else {
                ' '
            };
            cells.push(self.sign(sign));
        }
        cells
    }

    fn sign(&self, sign: char) -> char {
        match sign {
            _ if self.unicode => sign,
            '│' => '|',
            '─' => '-',
            ' ' => ' ',
            _ => '+',
        }
    }
}
