//! The one runner of phases: executes, times and reports them, and decides whether a failure ends the machine.

use std::time::Duration;

use super::events::Stop;
use super::report::{self, PhaseReport, Spent};
use crate::clock::Deadline;
use crate::image::policy::OnFailure;
use crate::verdict::Verdict;

/// One step of the life of a machine `M`.
pub struct Phase<M> {
    /// As in the report and on the console.
    pub name: &'static str,
    /// Whether it is run, and why.
    pub due: fn(&M) -> Due,
    /// Its time, for those that wait for something as a whole.
    pub limit: fn(&M) -> Option<Duration>,
    /// What a failure means.
    pub on_failure: fn(&M) -> OnFailure,
    /// What it does; the note is for the report.
    pub run: fn(&mut M, Deadline) -> Result<Done, Fault>,
}

/// Whether a phase is run, with the cause that the report gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is.
    Run(String),
    /// It is not.
    Skip(String),
}

/// A phase that did its work.
#[derive(Debug)]
pub enum Done {
    /// The next one follows.
    Next(String),
    /// The machine's task is done.
    End(Verdict),
}

/// A phase that did not.
#[derive(Debug)]
pub enum Fault {
    /// The machine was asked to end.
    Stop,
    /// Something is wrong, and this is how the machine ends if that matters.
    Failed(Verdict),
}

impl From<Stop> for Fault {
    fn from(_: Stop) -> Self {
        Self::Stop
    }
}

/// For `map_err`: an error that is the site's or the image's.
pub fn site_fault(error: impl std::fmt::Display) -> Fault {
    Fault::Failed(Verdict::site_fault(error))
}

/// For `map_err`: an error of this machine.
pub fn machine_fault(error: impl std::fmt::Display) -> Fault {
    Fault::Failed(Verdict::machine_fault(error))
}

/// Runs every phase in order; `record` puts each into the report. Returns why the machine ends.
pub fn run<M>(phases: &[Phase<M>], machine: &mut M, record: fn(&mut M, PhaseReport)) -> Verdict {
    for phase in phases {
        let (start_ms, before) = (report::now_ms(), Spent::now());
        let limit = (phase.limit)(machine);
        let (cause, skipped) = match (phase.due)(machine) {
            Due::Run(cause) => (cause, false),
            Due::Skip(cause) => (cause, true),
        };
        let told = |machine: &mut M, outcome, note| {
            let told = PhaseReport {
                name: phase.name,
                cause: cause.clone(),
                start_ms,
                millis: report::now_ms().saturating_sub(start_ms),
                limit_ms: limit.map(|limit| limit.as_millis() as u64),
                outcome,
                note,
                spent: Spent::since(before),
                ..PhaseReport::default()
            };
            record(machine, told);
        };
        if skipped {
            told(machine, "skipped", cause.clone());
            continue;
        }
        let deadline = Deadline::after(limit.unwrap_or_default());
        match (phase.run)(machine, deadline) {
            Ok(Done::Next(note)) => told(machine, "ok", note),
            Ok(Done::End(verdict)) => {
                told(machine, "ok", verdict.text.clone());
                return verdict;
            }
            Err(Fault::Stop) => {
                let verdict = Verdict::host_asked("the host asked for the end");
                told(machine, "stopped", verdict.text.clone());
                return verdict;
            }
            Err(Fault::Failed(verdict)) => {
                told(machine, "failed", verdict.text.clone());
                if (phase.on_failure)(machine) == OnFailure::Stop {
                    return verdict;
                }
            }
        }
    }
    Verdict::done("every phase is done")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of three phases does, and what was reported.
    #[derive(Default)]
    struct Model {
        plan: [Plan; 3],
        next: usize,
        told: Vec<(&'static str, &'static str)>,
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    enum Plan {
        #[default]
        Next,
        End,
        Skip,
        Stop,
        FailAndEnd,
        FailAndGoOn,
    }

    const PLANS: [Plan; 6] = [Plan::Next, Plan::End, Plan::Skip, Plan::Stop, Plan::FailAndEnd, Plan::FailAndGoOn];

    fn phase(name: &'static str) -> Phase<Model> {
        Phase {
            name,
            due: |model| match model.plan[model.next] {
                Plan::Skip => Due::Skip("planned".to_owned()),
                _ => Due::Run("always".to_owned()),
            },
            limit: |_| None,
            on_failure: |model| match model.plan[model.next - 1] {
                Plan::FailAndGoOn => OnFailure::Continue,
                _ => OnFailure::Stop,
            },
            run: |model, _| match model.plan[model.next] {
                Plan::Next | Plan::Skip => Ok(Done::Next(String::new())),
                Plan::End => Ok(Done::End(Verdict::no_work("planned"))),
                Plan::Stop => Err(Fault::Stop),
                Plan::FailAndEnd | Plan::FailAndGoOn => Err(site_fault("planned")),
            },
        }
    }

    fn record(model: &mut Model, told: PhaseReport) {
        model.told.push((told.name, told.outcome));
        model.next += 1;
    }

    /// Every combination: each phase is told of once and in order, none runs after an end, and the verdict is
    /// that of the phase that ended it.
    #[test]
    fn every_plan_ends_as_it_must() {
        let phases = [phase("a"), phase("b"), phase("c")];
        for plan in PLANS.iter().flat_map(|a| PLANS.iter().flat_map(move |b| PLANS.iter().map(move |c| [*a, *b, *c]))) {
            let mut model = Model { plan, ..Model::default() };
            let verdict = run(&phases, &mut model, record);
            let last = plan.iter().position(|p| matches!(p, Plan::End | Plan::Stop | Plan::FailAndEnd));
            let ran = last.map_or(3, |last| last + 1);
            let outcome = |plan: &Plan| match plan {
                Plan::Next | Plan::End => "ok",
                Plan::Skip => "skipped",
                Plan::Stop => "stopped",
                Plan::FailAndEnd | Plan::FailAndGoOn => "failed",
            };
            let told: Vec<_> = ["a", "b", "c"].into_iter().zip(plan.iter().map(outcome)).take(ran).collect();
            assert_eq!(model.told, told, "{plan:?}");
            let code = match last.map(|last| plan[last]) {
                Some(Plan::End) => 300,
                Some(Plan::Stop) => 100,
                Some(_) => 500,
                None => 200,
            };
            assert_eq!(verdict.code, code, "{plan:?}");
        }
    }
}
