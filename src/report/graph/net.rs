//! The steps of a definition as one flat net: what is drawn, whatever the format.

use std::collections::{HashMap, VecDeque};

use crate::engine::{Body, Definition, StepDef, StepPath, UndoDef};
use crate::report::telling::one_line;

/// What is drawn.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub nodes: Vec<Node>,
    /// Pipelines used as steps, outermost first.
    pub frames: Vec<Frame>,
}

/// On which side of the pivot a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    /// It may start before a pivot has.
    Before,
    /// It is a pivot, or waits for one.
    After,
    /// It runs whatever the outcome.
    Finally,
}

#[derive(Debug)]
pub(super) struct Node {
    /// Its path without keys.
    pub path: String,
    /// What people read beside it.
    pub name: Option<String>,
    pub uses: String,
    pub needs: Vec<usize>,
    pub dependants: Vec<usize>,
    pub half: Half,
    pub is_pivot: bool,
    /// The pivot lies inside it.
    pub is_inside: bool,
    pub is_each: bool,
    pub is_approval: bool,
    /// The step that ends it, when it runs in the background.
    pub until: Option<usize>,
    pub until_id: Option<String>,
    pub undo: UndoDef,
    pub continues: bool,
    /// The pipeline it is inside of.
    pub frame: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Frame {
    pub path: String,
    /// What people read beside it.
    pub name: Option<String>,
    pub uses: String,
    pub parent: Option<usize>,
    pub is_each: bool,
    pub is_finally: bool,
}

/// Where edges to and from a step of a list end: a pipeline has first and last steps of its own.
struct Ends {
    first: Vec<usize>,
    last: Vec<usize>,
}

impl Net {
    pub fn of(definition: &Definition) -> Self {
        let mut net = Self::default();
        net.add(&definition.steps, None, None, Half::Before, false);
        net.add(&definition.finally, None, None, Half::Finally, false);
        for node in 0..net.nodes.len() {
            net.nodes[node].needs.sort_unstable();
            net.nodes[node].needs.dedup();
            for need in net.nodes[node].needs.clone() {
                net.nodes[need].dependants.push(node);
            }
        }
        net.split_at_pivots();
        net
    }

    fn add(&mut self, steps: &[StepDef], within: Option<&StepPath>, frame: Option<usize>, half: Half, pivot: bool) -> Vec<Ends> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut ends: Vec<Ends> = Vec::new();
        for (place, step) in steps.iter().enumerate() {
            places.insert(&step.id, place);
            let path = within.map_or_else(|| StepPath::root(&step.id), |within| within.child(&step.id));
            // A group that is a pivot, or is inside one, hands that on to the steps it begins with.
            let is_pivot = step.pivot || (pivot && step.needs.is_empty());
            let inside = match &step.body {
                Body::Pipeline(inner) if !inner.steps.is_empty() => Some(inner),
                _ => None,
            };
            ends.push(if let Some(inner) = inside {
                self.frames.push(Frame {
                    path: path.to_string(),
                    name: step.name.as_deref().map(one_line),
                    uses: step.uses.clone(),
                    parent: frame,
                    is_each: step.for_each,
                    is_finally: half == Half::Finally,
                });
                let own = self.frames.len() - 1;
                let inner_ends = self.add(&inner.steps, Some(&path), Some(own), half, is_pivot);
                let needed: Vec<&str> = inner.steps.iter().flat_map(|step| step.needs.iter().map(String::as_str)).collect();
                let of = |pick: &dyn Fn(&StepDef) -> bool, side: &dyn Fn(&Ends) -> Vec<usize>| -> Vec<usize> {
                    inner.steps.iter().zip(&inner_ends).filter(|(step, _)| pick(step)).flat_map(|(_, ends)| side(ends)).collect()
                };
                Ends {
                    first: of(&|step| step.needs.is_empty(), &|ends| ends.first.clone()),
                    last: of(&|step| !needed.contains(&step.id.as_str()), &|ends| ends.last.clone()),
                }
            } else {
                self.nodes.push(Node {
                    path: path.to_string(),
                    name: step.name.as_deref().map(one_line),
                    uses: step.uses.clone(),
                    needs: Vec::new(),
                    dependants: Vec::new(),
                    half,
                    is_pivot,
                    is_inside: step.pivot && step.pivot_inside,
                    is_each: step.for_each,
                    is_approval: matches!(step.body, Body::Approval { .. }),
                    until: None,
                    until_id: step.background.as_ref().map(|background| background.until.clone()),
                    undo: step.undo,
                    continues: step.continue_on_error,
                    frame,
                });
                Ends { first: vec![self.nodes.len() - 1], last: vec![self.nodes.len() - 1] }
            });
        }
        for (place, step) in steps.iter().enumerate() {
            for need in step.needs.iter().filter_map(|need| places.get(need.as_str())) {
                for &first in &ends[place].first {
                    self.nodes[first].needs.extend(&ends[*need].last);
                }
            }
            if let Some(until) = step.background.as_ref().and_then(|background| places.get(background.until.as_str()))
                && let Some(&last) = ends[*until].last.first()
            {
                for &first in &ends[place].first {
                    self.nodes[first].until = Some(last);
                }
            }
        }
        ends
    }

    fn split_at_pivots(&mut self) {
        let mut open: VecDeque<usize> = (0..self.nodes.len()).filter(|&node| self.nodes[node].is_pivot).collect();
        while let Some(node) = open.pop_front() {
            if self.nodes[node].half == Half::Before {
                self.nodes[node].half = Half::After;
                open.extend(&self.nodes[node].dependants);
            }
        }
    }

    /// The needs of each node without those that another need implies anyway: what a drawing can leave out.
    pub fn reduced_needs(&self) -> Vec<Vec<usize>> {
        let order = self.order();
        let words = self.nodes.len().div_ceil(64);
        // Everything before each node, itself not included.
        let mut before = vec![0_u64; words * self.nodes.len()];
        let mut reduced = vec![Vec::new(); self.nodes.len()];
        for &node in &order {
            let mut all = vec![0_u64; words];
            for &need in &self.nodes[node].needs {
                for (word, other) in all.iter_mut().zip(&before[need * words..(need + 1) * words]) {
                    *word |= other;
                }
            }
            reduced[node] =
                self.nodes[node].needs.iter().copied().filter(|need| all[need / 64] & (1 << (need % 64)) == 0).collect();
            for &need in &self.nodes[node].needs {
                all[need / 64] |= 1 << (need % 64);
            }
            before[node * words..(node + 1) * words].copy_from_slice(&all);
        }
        reduced
    }

    /// Every node after its needs: half by half, and depth first, so that what belongs together stays together.
    pub fn order(&self) -> Vec<usize> {
        let mut left: Vec<usize> = self.nodes.iter().map(|node| node.needs.len()).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut open: [Vec<usize>; 3] = Default::default();
        for (node, needs) in left.iter().enumerate().rev() {
            if *needs == 0 {
                open[self.nodes[node].half as usize].push(node);
            }
        }
        while let Some(node) = open.iter_mut().find_map(Vec::pop) {
            order.push(node);
            for &next in self.nodes[node].dependants.iter().rev() {
                left[next] -= 1;
                if left[next] == 0 {
                    open[self.nodes[next].half as usize].push(next);
                }
            }
        }
        order
    }
}

impl Frame {
    /// The line above what is inside it.
    pub fn title(&self) -> String {
        let name = self.name.as_ref().map_or(String::new(), |name| format!(" · {name}"));
        let each = if self.is_each { ", for each" } else { "" };
        format!("{}{name} ({}{each})", self.path, self.uses)
    }
}

impl Node {
    /// The lines in its box: the path, its name if it has one, the type, what is special about it.
    pub fn lines(&self) -> Vec<String> {
        let tags = Some(self.tags().join(", ")).filter(|tags| !tags.is_empty());
        [Some(self.path.clone()), self.name.clone(), Some(self.uses.clone()), tags].into_iter().flatten().collect()
    }

    /// The words that tell what is special about it.
    pub fn tags(&self) -> Vec<String> {
        let mut tags = Vec::new();
        if self.is_pivot {
            tags.push(if self.is_inside { "pivot inside" } else { "pivot" }.to_owned());
        }
        if self.is_each {
            tags.push("for each".to_owned());
        }
        if let Some(until) = &self.until_id {
            tags.push(format!("in the background until {until}"));
        }
        if self.continues {
            tags.push("may fail".to_owned());
        }
        if self.half == Half::Before {
            match self.undo {
                UndoDef::Impossible => tags.push("cannot be undone".to_owned()),
                UndoDef::Skip => tags.push("undo skipped".to_owned()),
                UndoDef::Built | UndoDef::Custom | UndoDef::Nothing => {}
            }
        }
        tags
    }

    /// Whether a rollback puts something back.
    pub fn is_undoable(&self) -> bool {
        matches!(self.undo, UndoDef::Built | UndoDef::Custom)
    }
}
