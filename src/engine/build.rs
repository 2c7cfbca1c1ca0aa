//! From a definition to nodes and edges, at the start and whenever a group opens.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::definition::{Body, Definition, OnFailure, StepDef};
use super::event::Resolution;
use super::node::{Ix, Node, State};
use super::path::StepPath;
use super::run::{Engine, Phase};

impl Engine {
    pub(super) fn create(
        &mut self,
        run: &str,
        definition: &Definition,
        document: &Value,
        on_failure: OnFailure,
        until: Option<&str>,
    ) {
        run.clone_into(&mut self.run);
        self.document = document.clone();
        self.on_failure = on_failure;
        self.until = until.map(str::to_owned);
        self.definition = Some(Box::new(definition.clone()));
        self.root = self.add_list(&definition.steps, None, false);
        self.finally = self.add_list(&definition.finally, None, true);
        self.phase = Phase::Forward;
        self.hold_back();
        self.recount();
        self.admit_all();
    }

    /// Adds a list of steps with the edges between them.
    pub(super) fn add_list(&mut self, steps: &[StepDef], parent: Option<Ix>, is_finally: bool) -> Vec<Ix> {
        let mut by_id = HashMap::with_capacity(steps.len());
        let mut list = Vec::with_capacity(steps.len());
        for def in steps {
            let path = parent.map_or_else(|| StepPath::root(&def.id), |parent| self.graph[parent].path.child(&def.id));
            let ix = self
                .take_back(&path, parent)
                .unwrap_or_else(|| self.add(Node::new(path, Arc::new(def.clone()), parent, is_finally)));
            by_id.insert(def.id.as_str(), ix);
            list.push(ix);
        }
        for (def, &ix) in steps.iter().zip(&list) {
            // A set, because `needs` may say what a template says again.
            for need in def.needs.iter().collect::<BTreeSet<_>>() {
                match by_id.get(need.as_str()) {
                    Some(&need) if need != ix => {
                        self.graph.add_edge(need, ix, ());
                    }
                    _ => self.fault(format!("`{}` needs `{need}`, which is not in its list", def.id)),
                }
            }
            if let Some(&until) = def.background.as_ref().and_then(|background| by_id.get(background.until.as_str())) {
                self.graph[until].served_by.push(ix);
            }
        }
        list
    }

    pub(super) fn add(&mut self, node: Node) -> Ix {
        let path = node.path.clone();
        let ix = self.graph.add_node(node);
        self.index.insert(path, ix);
        ix
    }

    /// Gives a group its children, from what its templates said. Children that are there already (the group was
    /// resolved anew after an edit or a new session) are matched by key, never by position, and keep what has happened
    /// to them; the ones that are gone become orphans.
    pub(super) fn expand(&mut self, ix: Ix) {
        let group = self.graph[ix].clone();
        let mut old: HashMap<StepPath, Ix> = group.children.iter().map(|&child| (self.path(child), child)).collect();
        let children = match (&group.resolution, &group.def.body) {
            (Some(Resolution::Instances { items }), _) => {
                // An instance is resolved by itself: its `if` and `lock` may mention `each`. All share one definition.
                let def = StepDef { for_each: false, max_parallel: None, needs: Vec::new(), ..(*group.def).clone() };
                let def = Arc::new(def);
                let mut children = Vec::with_capacity(items.len());
                for (position, (key, value)) in items.iter().enumerate() {
                    let path = group.path.instance(key);
                    let child = old
                        .remove(&path)
                        .or_else(|| self.take_back(&path, Some(ix)))
                        .unwrap_or_else(|| self.add(Node::new(path, def.clone(), Some(ix), group.is_finally)));
                    let node = &mut self.graph[child];
                    node.each = Some((key.clone(), value.clone()));
                    node.each_index = position;
                    children.push(child);
                }
                children
            }
            (Some(Resolution::Inputs { .. }), Body::Pipeline(inner)) if group.children.is_empty() => {
                self.add_list(&inner.steps, Some(ix), group.is_finally)
            }
            (Some(Resolution::Inputs { .. }), Body::Pipeline(_)) => {
                old.clear();
                group.children
            }
            _ => Vec::new(),
        };
        for (_, gone) in old {
            self.orphan(gone);
        }
        self.graph[ix].children = children;
    }

    /// Takes a node, and all inside it, out of the pipeline. What was started stays to be undone.
    pub(super) fn orphan(&mut self, ix: Ix) {
        let mut stack = vec![ix];
        while let Some(ix) = stack.pop() {
            stack.extend(std::mem::take(&mut self.graph[ix].children));
            let node = &mut self.graph[ix];
            node.is_orphan = true;
            node.parent = None;
            if node.is_group() || !node.was_started() {
                node.state = State::Skipped;
            } else {
                if !node.state.is_over() {
                    node.state = State::Stopped;
                }
                // Nobody undoes what `finally` did; its history is kept in case the instance comes back.
                if !self.graph[ix].is_finally {
                    self.orphans.push(ix);
                }
            }
            while let Some(edge) = self.graph.first_edge(ix, petgraph::Direction::Incoming) {
                self.graph.remove_edge(edge);
            }
            while let Some(edge) = self.graph.first_edge(ix, petgraph::Direction::Outgoing) {
                self.graph.remove_edge(edge);
            }
        }
    }

    /// A step that left the pipeline and comes back, by its name: with what it has done.
    fn take_back(&mut self, path: &StepPath, group: Option<Ix>) -> Option<Ix> {
        let ix = *self.index.get(path)?;
        if !self.graph[ix].is_orphan {
            return None;
        }
        self.orphans.retain(|&orphan| orphan != ix);
        let node = &mut self.graph[ix];
        node.is_orphan = false;
        node.parent = group;
        node.served_by.clear();
        match node.state {
            State::Stopped => node.state = State::Blocked,
            // A group, or what never began: its templates are asked again.
            State::Skipped => {
                node.state = State::Blocked;
                node.resolution = None;
            }
            _ => {}
        }
        Some(ix)
    }

    fn recount_needs(&mut self) {
        // In the order of the edges, because a completed step counts as a need only when its own needs do.
        match petgraph::algo::toposort(&self.graph, None) {
            Ok(order) => order.into_iter().for_each(|ix| self.recount_need(ix)),
            Err(cycle) => {
                let path = self.path(cycle.node_id());
                self.fault(format!("`{path}` needs itself"));
            }
        }
    }

    /// The same for one list of steps.
    fn recount_needs_of(&mut self, list: &[Ix]) {
        let mut waits: HashMap<Ix, usize> = list.iter().map(|&ix| (ix, self.needs(ix).count())).collect();
        let mut free: Vec<Ix> = list.iter().copied().filter(|ix| waits.get(ix) == Some(&0)).collect();
        while let Some(ix) = free.pop() {
            self.recount_need(ix);
            for dependant in self.dependants(ix).collect::<Vec<_>>() {
                if let Some(left) = waits.get_mut(&dependant) {
                    *left -= 1;
                    if *left == 0 {
                        free.push(dependant);
                    }
                }
            }
        }
    }

    fn recount_need(&mut self, ix: Ix) {
        let unmet = self.needs(ix).filter(|&need| !self.graph[need].has_satisfied).count();
        let node = &mut self.graph[ix];
        node.unmet = unmet;
        node.has_satisfied = unmet == 0 && node.satisfies();
    }

    /// Derives what is counted of a group's children, just after they were made.
    pub(super) fn recount_group(&mut self, ix: Ix) {
        let children = self.graph[ix].children.clone();
        self.recount_needs_of(&children);
        let (mut left, mut open) = (0, 0);
        for &child in &children {
            let node = &self.graph[child];
            left += usize::from(!node.is_done());
            open += u32::from(node.is_instance() && node.occupies_group());
        }
        let group = &mut self.graph[ix];
        group.children_left = left;
        group.instances_open = open;
        group.next_instance = 0;
    }

    /// All nodes from the top lists down, parents first; orphans are not among them.
    pub(super) fn walk(&self, lists: &[Ix]) -> Vec<Ix> {
        let mut order = lists.to_vec();
        let mut at = 0;
        while let Some(&ix) = order.get(at) {
            order.extend_from_slice(&self.graph[ix].children);
            at += 1;
        }
        order
    }

    /// Derives every counter from the states. Live, they are kept step by step (`update`); this is for the moments
    /// when many states change at once.
    pub(super) fn recount(&mut self) {
        self.queue.clear();
        let everything: Vec<Ix> = self.root.iter().chain(&self.finally).copied().collect();
        let order = self.walk(&everything);
        self.load = super::node::Load::default();
        self.recount_needs();
        for &ix in &order {
            let node = &mut self.graph[ix];
            node.children_left = 0;
            node.instances_open = 0;
            node.next_instance = 0;
            node.inside = super::node::Load::default();
            if matches!(node.state, State::Queued | State::UndoQueued) {
                self.queue.push_back(ix);
            }
        }
        for &ix in order.iter().rev() {
            let node = &self.graph[ix];
            let mut load = node.load();
            load.add(node.inside);
            let (is_done, is_open) = (node.is_done(), node.is_instance() && node.occupies_group());
            if let Some(parent) = node.parent {
                let parent = &mut self.graph[parent];
                parent.inside.add(load);
                parent.children_left += usize::from(!is_done);
                parent.instances_open += u32::from(is_open);
            } else {
                self.load.add(load);
            }
        }
        for &ix in &self.orphans.clone() {
            let load = self.graph[ix].load();
            self.load.add(load);
        }
    }
}
