//! What is done about each name, as far as listings tell.

use std::sync::atomic::Ordering;

use super::copy::Job;
use super::failures::there_is_no_point;
use super::ledger::Touched;
use super::limits::Mode;
use super::manifest::{Entry, Sides};
use super::plan::is_copied;
use super::task::Task;
use super::window::Done;
use super::work::Work;
use crate::error::StepError;
use crate::steps::object::merge::Pair;
use crate::steps::object::same::{Answer, Rule};
use crate::stores::{Facts, Kind, Listed};

impl Work<'_> {
    /// Decides about one name.
    pub(super) fn decide(&mut self, pair: Pair, is_deleting: bool) -> Result<(), StepError> {
        if is_deleting {
            return if self.config.mode == Mode::Move { self.decide_removal(pair) } else { self.decide_deletion(pair) };
        }
        let Pair { key, source, target } = pair;
        let Some(listed) = source else {
            let is_extra = target.is_some_and(|target| target.kind.is_object());
            return self.window.close(key, if is_extra { Done::Extra } else { Done::Nothing }, None);
        };
        match is_copied(&self.transfer.source, &self.transfer.target, &listed) {
            Ok(true) => {}
            Ok(false) => {
                let is_left_out = listed.kind.is_left_out();
                if is_left_out && self.window.token.pass == 0 {
                    self.window.token.done.warnings += 1;
                    let what = if listed.kind == Kind::Link { "a symbolic link" } else { "neither a file nor a folder" };
                    self.ctx.warn(format!("`{key}` is {what} and is left out"));
                }
                return self.window.close(key, if is_left_out { Done::LeftOut } else { Done::Nothing }, None);
            }
            Err(error) => {
                self.window.open(key);
                self.fail(error);
                return there_is_no_point(self);
            }
        }
        let last = if self.window.token.pass > 0 { self.named(&key)? } else { None };
        let last = last.filter(|last| target.as_ref().is_some_and(|there| last.is_still(&there.facts)));
        let mine = self.earlier.remove(&key);
        let answer = target.as_ref().map_or(Answer::Different, |there| self.compare(&listed, there, mine.as_ref()));
        if answer == Answer::Same {
            let there = target.as_ref().expect("only what is there is the same");
            let mine = mine.filter(|touched| !touched.is_deleted && touched.is_ours(&there.facts));
            // What an earlier pass has copied was counted there.
            let mine = mine.filter(|touched| touched.pass == self.window.token.pass);
            let Some(touched) = mine else {
                let entry = self.there_already(&listed, Some(there));
                let entry = match &last {
                    Some(last) => Entry { blake3: last.blake3.as_deref(), copied: last.copied, ..entry },
                    None => entry,
                };
                return self.window.close(key, Done::Skipped, Some(&entry));
            };
            let bytes = listed.facts.size;
            self.transfer.moved.fetch_add(bytes, Ordering::Relaxed);
            self.found.0 += 1;
            self.found.1 += bytes;
            if self.transfer.verify.takes(&key) && !touched.is_verified {
                let number = self.window.open(key);
                let job = Job { number, listed, there: target, was: None, is_ours: touched.was.is_none() };
                self.ready.push_back(Task::Verify { job, blake3: touched.blake3 });
                return Ok(());
            }
            let entry = Entry { copied: true, blake3: touched.blake3.as_deref(), ..self.there_already(&listed, Some(there)) };
            let (is_overwrite, is_inside) = (touched.was.is_some(), touched.is_inside());
            let done = Done::Copied { bytes, is_overwrite, is_inside, is_verified: false };
            return self.window.close(key, done, Some(&entry));
        }
        let is_ours = mine.is_some_and(|touched| touched.was.is_none()) || last.as_ref().is_some_and(|last| last.copied);
        let number = self.window.open(key);
        if let Some(last) = &last {
            self.window.fall_back(number, &last.entry());
        }
        let keeps_versions = target.is_some() && self.transfer.target.abilities().versions;
        let job = Job { number, listed, there: target, was: None, is_ours };
        // What has to be looked at first is written down once it is known to be copied.
        if matches!(answer, Answer::Read | Answer::Ask) || keeps_versions {
            self.ready.push_back(Task::Look { job, answer });
        } else {
            self.find(&job);
            self.decided.push_back(Task::Copy(job));
        }
        Ok(())
    }

    /// Whether both are the same. A move needs more than a name, a size and a time: what this step has not copied itself
    /// is the same only with the same content.
    fn compare(&self, listed: &Listed, there: &Listed, mine: Option<&Touched>) -> Answer {
        let is_left = |touched: &Touched| {
            let is_of = |(of, changed): &(Facts, Option<_>)| of.is_surely(&listed.facts) && *changed == listed.changed;
            touched.has_left(&there.facts) && touched.from.as_ref().is_some_and(is_of)
        };
        match self.config.compare.of_copy(listed, there) {
            Answer::Same | Answer::Ask if self.config.mode == Mode::Move && !mine.is_some_and(is_left) => {
                Rule::Auto.of_proof(listed, there)
            }
            // What this step has left needs no question.
            Answer::Ask if mine.is_some_and(|touched| touched.has_left(&there.facts)) => Answer::Same,
            answer => answer,
        }
    }

    /// What the manifest says of an object that was at the target already.
    pub(super) fn there_already<'a>(&self, listed: &'a Listed, there: Option<&'a Listed>) -> Entry<'a> {
        let both = |there: &'a Listed| there.md5.as_deref().filter(|md5| listed.md5.as_deref() == Some(md5));
        Entry {
            key: &listed.key,
            size: listed.facts.size,
            blake3: None,
            etag: there.and_then(|there| there.facts.etag.as_deref()),
            md5: there.and_then(both),
            copied: false,
            sides: there.and_then(|there| self.sides(listed, &listed.facts, &there.facts)),
        }
    }

    pub(super) fn sides(&self, listed: &Listed, source: &Facts, target: &Facts) -> Option<Sides> {
        let both = || Sides { source: source.clone(), changed: listed.changed, target: target.clone() };
        (self.config.mode == Mode::Move || self.config.follow.way().is_some()).then(both)
    }

    fn decide_deletion(&mut self, pair: Pair) -> Result<(), StepError> {
        let Pair { key, source, target } = pair;
        let Some(there) = target.filter(|there| source.is_none() && there.kind.is_object()) else {
            return self.window.close(key, Done::Nothing, None);
        };
        let number = self.window.open(key.clone());
        self.decided.push_back(Task::Delete { number, key, was: there.facts });
        Ok(())
    }
}
