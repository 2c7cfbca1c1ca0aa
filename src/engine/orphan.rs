//! When the steps that an edit took out of the pipeline go back.
//!
//! Where such an orphan stood in the graph is not known any more; when it was started is. So it takes its place by that:
//! all that was started later is put back before it, all that was started earlier after it. A rollback goes down the
//! orphans, the last started first, in two stages each: the steps of the pipeline that were started later, as the graph
//! lets them; then the orphan by itself.

use super::definition::UndoDef;
use super::node::{Ix, State};
use super::run::Engine;
use super::status::RunStatus;

impl Engine {
    /// Called when nothing is being undone: the next stage, or the outcome.
    pub(super) fn continue_undo(&mut self) -> Option<RunStatus> {
        let stage = self.undo_stage;
        self.undo_stage += 1;
        let orphan = self.orphans.get(stage / 2).copied();
        match (stage.is_multiple_of(2), orphan) {
            (true, _) if stage == 0 => {
                let free = self.root.iter().copied().filter(|&ix| self.graph[ix].undo_waits == 0).collect();
                self.undo_from(free);
            }
            (true, _) => {
                let above = self.graph[self.orphans[stage / 2 - 1]].start_order;
                if self.stays_from(above) {
                    return Some(self.undo_outcome());
                }
                let free = self.unparked();
                self.undo_from(free);
            }
            (false, Some(orphan)) => {
                // The order would be wrong for good if it went now, and what failed after it, when that is tried again.
                if self.stays_from(self.graph[orphan].start_order + 1) {
                    return Some(self.undo_outcome());
                }
                self.unlock_for(orphan);
                self.undo_from(vec![orphan]);
            }
            (false, None) => return Some(self.undo_outcome()),
        }
        None
    }

    fn undo_outcome(&mut self) -> RunStatus {
        for ix in self.open_and_locked() {
            self.graph[ix].holds_lock = false;
            self.give_back(ix);
        }
        let is_clean = self.left_behind().next().is_none();
        if is_clean { RunStatus::RolledBack } else { RunStatus::RollbackFailed }
    }

    /// Whether something that was started then or later could not be put back: a step, or a group that did not get its lock.
    fn stays_from(&self, start: u64) -> bool {
        self.graph.node_weights().any(|node| {
            let stays = node.state == State::UndoFailed && !node.is_finally;
            stays && (node.is_group() || node.start_order >= start)
        })
    }

    /// The groups that hold their lock while what is left inside waits for an orphan.
    fn open_and_locked(&self) -> Vec<Ix> {
        let mut all = self.walk(&self.root);
        all.retain(|&ix| self.graph[ix].holds_lock && self.graph[ix].state == State::UndoOpen);
        all
    }

    /// Nothing moves but this orphan, which may need a lock that a waiting step or group of ours holds.
    fn unlock_for(&mut self, orphan: Ix) {
        let Some(lock) = self.graph[orphan].lock.clone() else { return };
        for ix in self.walk(&self.root) {
            let node = &mut self.graph[ix];
            let is_waiting = matches!(node.state, State::UndoOpen | State::UndoBlocked);
            if node.holds_lock && is_waiting && node.lock.as_ref() == Some(&lock) {
                node.holds_lock = false;
                self.give_back(ix);
            }
        }
    }

    /// Whether a step whose turn has come by the graph has to wait: for an orphan that was started later, or for the lock
    /// of a group around it that was given back for one.
    pub(super) fn has_to_wait(&mut self, ix: Ix) -> bool {
        let node = &self.graph[ix];
        if node.is_orphan || node.next_undo().is_none() || node.state == State::UndoFailed {
            return false;
        }
        if node.start_order < self.undo_floor() {
            return true;
        }
        if !matches!(self.undo_of(ix), UndoDef::Built | UndoDef::Custom) {
            return false;
        }
        let (mut around, mut outermost) = (node.parent, None);
        while let Some(group) = around {
            let node = &self.graph[group];
            if node.lock.is_some() && !node.holds_lock {
                outermost = Some(group);
            }
            around = node.parent;
        }
        let Some(group) = outermost else { return false };
        if self.graph[group].state == State::UndoOpen {
            self.enter(group, State::UndoLocking);
        }
        true
    }

    /// Takes out those that may go now.
    pub(super) fn unparked(&mut self) -> Vec<Ix> {
        let floor = self.undo_floor();
        let parked = std::mem::take(&mut self.undo_parked);
        let (free, parked) = parked.into_iter().partition(|&ix| self.graph[ix].start_order >= floor);
        self.undo_parked = parked;
        free
    }

    /// Nothing of the pipeline that was started before this goes back yet.
    fn undo_floor(&self) -> u64 {
        let orphan = self.orphans.get(self.undo_stage.saturating_sub(1) / 2);
        orphan.map_or(0, |&orphan| self.graph[orphan].start_order)
    }
}
