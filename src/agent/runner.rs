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

/// The life of a machine: every phase in order, each put into the report by `record`, and then its end, whatever
/// happened. `asked` says why, where it was asked to end.
pub fn run<M>(
    phases: &[Phase<M>],
    machine: &mut M,
    asked: fn(&M) -> Verdict,
    record: fn(&mut M, PhaseReport),
    end: fn(&mut M, Verdict),
) {
    let verdict = until_the_end(phases, machine, asked, record);
    end(machine, verdict);
}

/// Returns why the machine ends.
fn until_the_end<M>(
    phases: &[Phase<M>],
    machine: &mut M,
    asked: fn(&M) -> Verdict,
    record: fn(&mut M, PhaseReport),
) -> Verdict {
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
                let verdict = asked(machine);
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
    use super::super::phases::PHASES;
    use super::*;

    /// A machine whose phases do as planned, and what was seen of it.
    #[derive(Default)]
    struct Model {
        plan: Vec<Plan>,
        ran: Vec<usize>,
        told: Vec<(&'static str, &'static str)>,
        ends: Vec<u16>,
    }

    impl Model {
        /// Of the phase that is under way.
        fn plan(&self) -> Plan {
            self.plan[self.told.len()]
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Plan {
        Next,
        Skip,
        FailAndGoOn,
        End,
        Stop,
        FailAndEnd,
    }

    /// What may become of a phase of the real table. Any may do its work, fail, or hear that the machine is to end.
    fn choices(name: &str) -> Vec<Plan> {
        let more: &[Plan] = match name {
            "devices" => &[Plan::FailAndGoOn],
            "image" | "medium" | "firewall" | "seal" => &[Plan::Skip, Plan::FailAndEnd],
            "policy" | "network" => &[Plan::FailAndEnd],
            "logging" => &[Plan::Skip, Plan::FailAndGoOn],
            "work" => &[Plan::End, Plan::FailAndEnd],
            // The prolog and the epilog, as the image's policy says; and any that is new.
            _ => &[Plan::Skip, Plan::FailAndGoOn, Plan::FailAndEnd],
        };
        [&[Plan::Next, Plan::Stop], more].concat()
    }

    /// Every plan in which so many phases at most do other than their work, as far as it goes: up to a phase that ends
    /// the machine, or through the whole table. All plans would be three times as many with each new phase.
    fn every_plan(plan: &mut Vec<Plan>, others: usize, check: &mut impl FnMut(&[Plan])) {
        let Some(phase) = PHASES.get(plan.len()) else { return check(plan) };
        for choice in choices(phase.name) {
            let others = match choice {
                Plan::Next => others,
                _ if others == 0 => continue,
                _ => others - 1,
            };
            plan.push(choice);
            match choice {
                Plan::Next | Plan::Skip | Plan::FailAndGoOn => every_plan(plan, others, check),
                Plan::End | Plan::Stop | Plan::FailAndEnd => check(plan),
            }
            plan.pop();
        }
    }

    fn model(name: &'static str) -> Phase<Model> {
        Phase {
            name,
            due: |model| match model.plan() {
                Plan::Skip => Due::Skip("planned".to_owned()),
                _ => Due::Run("planned".to_owned()),
            },
            limit: |_| None,
            // It is asked about the phase that was told of last.
            on_failure: |model| match model.plan[model.told.len() - 1] {
                Plan::FailAndGoOn => OnFailure::Continue,
                _ => OnFailure::Stop,
            },
            run: |model, _| {
                model.ran.push(model.told.len());
                match model.plan() {
                    Plan::Next | Plan::Skip => Ok(Done::Next(String::new())),
                    Plan::End => Ok(Done::End(Verdict::no_work("planned"))),
                    Plan::Stop => Err(Fault::Stop),
                    Plan::FailAndEnd | Plan::FailAndGoOn => Err(site_fault("planned")),
                }
            },
        }
    }

    fn record(model: &mut Model, told: PhaseReport) {
        assert!(model.ends.is_empty(), "{} after the end", told.name);
        model.told.push((told.name, told.outcome));
    }

    fn end(model: &mut Model, verdict: Verdict) {
        model.ends.push(verdict.code);
    }

    /// Any two phases of the real table in every combination: each phase is told of once and in order, a skipped one does not run, none
    /// follows one that ends the machine, a failure that may be passed over ends nothing, and the end comes once, last,
    /// and with the verdict of the phase that brought it.
    #[test]
    fn every_plan_ends_as_it_must() {
        let phases: Vec<Phase<Model>> = PHASES.iter().map(|phase| model(phase.name)).collect();
        let mut plans = 0;
        every_plan(&mut Vec::new(), 2, &mut |plan| {
            let mut model = Model { plan: plan.to_vec(), ..Model::default() };
            run(&phases, &mut model, |_| Verdict::host_asked("planned"), record, end);
            let outcome = |plan: &Plan| match plan {
                Plan::Next | Plan::End => "ok",
                Plan::Skip => "skipped",
                Plan::Stop => "stopped",
                Plan::FailAndEnd | Plan::FailAndGoOn => "failed",
            };
            let told: Vec<_> = PHASES.iter().map(|phase| phase.name).zip(plan.iter().map(outcome)).collect();
            let ran: Vec<_> = (0..plan.len()).filter(|&at| plan[at] != Plan::Skip).collect();
            let code = match plan.last() {
                Some(Plan::End) => 300,
                Some(Plan::Stop) => 100,
                Some(Plan::FailAndEnd) => 500,
                _ => 200,
            };
            assert_eq!((model.told, model.ran, model.ends), (told, ran, vec![code]), "{plan:?}");
            plans += 1;
        });
        assert!(plans > 300, "{plans} plans");
    }
}
