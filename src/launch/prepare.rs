//! What a launch decides before it changes anything: which pair, which labels, and whether the policy will
//! let all of it be done. It ends with the originals written down and a keeper that holds every file.
//!
//! That nobody else has the pair is found by a look at every process after the claim (`mcs`). If pairs are
//! plenty the keeper's look is the one, while this process goes on as if nobody had it. If somebody has,
//! everything is decided again with a pair that this process has looked for.

use std::path::PathBuf;

use nix::unistd::Uid;

use crate::cli::{self, Preflight};
use crate::host::pinned::Pinned;
use crate::host::process_labels::INCOMPLETE;
use crate::host::{ProcessLabels, Processes, RealHost};
use crate::launch::apply;
use crate::launch::chains::Chains;
use crate::launch::exec::QemuProgram;
use crate::launch::inherited_fds;
use crate::launch::planning::{self, Reading};
use crate::launch::share_content;
use crate::model::chain::{Chain, DiskKey};
use crate::model::label::{Categories, Context, Level};
use crate::plan::preflight::{self, Privilege};
use crate::plan::remembered::Judgement;
use crate::plan::resource::{Collected, DeferredHeader};
use crate::plan::step::{Action, Plan};
use crate::restore::journal::{Journal, JournalError};
use crate::restore::journals;
use crate::restore::keeper::client::{self, Keeper, PairVerdict, Starting};
use crate::seclabel::domain;
use crate::seclabel::labels::GuestLabels;
use crate::seclabel::mcs::{self, Claim, Sharing};
use crate::seclabel::pair_error::PairError;
use crate::selinux::Mode;
use crate::text::message::{Message, Refusal, refuse, say};
use crate::text::progress::Steps;

/// A launch that is under way.
#[derive(Debug)]
pub struct Launcher<'a> {
    /// The host.
    pub host: &'a RealHost,
    /// What is launched.
    pub program: &'a QemuProgram,
    /// How.
    pub options: &'a cli::Launch,
    /// This process's context.
    pub own: &'a Context,
    /// The program, opened once.
    pub pinned: &'a Pinned,
    /// What this process can do to files of others.
    pub privilege: Privilege,
    /// Whether the policy is enforced.
    pub mode: Mode,
    /// Where originals are written down.
    pub journal: &'a Result<Journal, JournalError>,
    /// `-v`
    pub step: &'a Steps,
}

/// A launch of which everything is decided, and nothing changed.
#[derive(Debug)]
pub struct Prepared {
    /// The guest's context, claimed.
    pub context: Context,
    /// What will be done.
    pub plan: Plan,
    /// The process that undoes it. None if there is nothing to undo.
    pub keeper: Option<Keeper>,
    /// What inherited descriptors need.
    pub repairs: inherited_fds::Repairs,
    /// Block devices whose headers are read once they have their labels.
    pub deferred: Vec<DeferredHeader>,
    /// QEMU's working directory.
    pub cwd: PathBuf,
    /// What is known of disks.
    pub chains: Chains,
    /// What is to be known of them at the next launch.
    pub remembered: Vec<(DiskKey, Chain)>,
}

/// Which process looks whether the pair that was drawn is somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// The keeper if that will do.
    Keeper,
    /// This process, before anything is decided for it.
    Launcher,
}

/// A context that is claimed.
enum ClaimedPair {
    /// Nobody else has overlapping categories.
    Verified(Claim),
    /// Whether that is so, the keeper has still to find.
    Unverified(Context),
}

impl ClaimedPair {
    fn context(&self) -> &Context {
        match self {
            Self::Verified(claim) => &claim.context,
            Self::Unverified(context) => context,
        }
    }
}

impl Launcher<'_> {
    /// Claims a pair, decides every label, asks about everything, writes the originals down and has a
    /// keeper hold them.
    ///
    /// # Errors
    /// Every reason not to; nothing is labelled then.
    pub fn prepare(&self, reading: &Reading, keeper: Starting) -> Result<Prepared, Refusal> {
        let (mut keeper, mut look) = (keeper, Look::Keeper);
        loop {
            if let Some(prepared) = self.attempt(reading.clone(), keeper, look)? {
                return Ok(prepared);
            }
            self.step
                .tell(format_args!("somebody has that pair: drawing another"));
            (keeper, look) = (start_keeper(self.own)?, Look::Launcher);
        }
    }

    /// Prepares with one pair. Returns None if the pair is somebody's.
    fn attempt(
        &self,
        mut reading: Reading,
        mut starting: Starting,
        look: Look,
    ) -> Result<Option<Prepared>, Refusal> {
        let (host, step) = (self.host, self.step);
        let chains = Chains::of(host, self.options)?;
        let (mut collected, judged) = self.collect(&mut reading, &chains)?;
        let deferred = std::mem::take(&mut collected.deferred);
        let cwd = reading.cwd.clone();
        let level = planning::chosen_level(self.options, self.own)?;
        let stated = self.options.label.as_ref();
        let types = domain::guest_types(host, self.own, reading.accelerator, stated)?;
        let pair = self.claim(level, &types.domain, &collected, look)?;
        let context = pair.context().clone();
        let processes = self.tell_keeper(&pair, &mut starting);
        step.tell(format_args!("claimed {context}"));
        let private = planning::private_to(self.options);
        let labels = GuestLabels::new(&types, context.level()).private_to(private);
        if !self.options.no_relabel {
            share_content::share(host, self.own, &labels, &mut collected)?;
        }
        let name = reading.name.clone();
        let directory = reading.directory.clone();
        let mut plan = planning::make_plan(
            host,
            self.program,
            reading,
            collected,
            Some(labels),
            planning::relabelling(self.options),
            processes,
        )?;
        plan.notes = judged.notes;
        let repairs = self.check(&plan, &context)?;
        let changes = plan.steps.iter().filter(|s| s.action != Action::None);
        step.tell(format_args!("decided: {} labels to set", changes.count()));
        let entry = apply::new_entry(host, &plan, &context, name.as_deref(), directory)?;
        let (keeper, verdict) =
            apply::write_down(starting, entry, name.is_some(), self.journal, &plan)?;
        if let ClaimedPair::Unverified(_) = pair
            && !self.is_ours(&context, verdict)?
        {
            return Ok(None);
        }
        step.tell(format_args!("wrote the journal, the keeper has it"));
        Ok(Some(Prepared {
            context,
            plan,
            keeper,
            repairs,
            deferred,
            cwd,
            chains,
            remembered: judged.chains,
        }))
    }

    /// Looks at everything that the line names, and judges the headers of its images before anything is done
    /// with what those name: private content is shared on the way to a plan.
    fn collect(
        &self,
        reading: &mut Reading,
        chains: &Chains,
    ) -> Result<(Collected, Judgement), Refusal> {
        let mut collected = planning::collect_resources(self.host, self.program, reading)?;
        if self.options.no_relabel {
            planning::warn_of_unread_headers(&mut collected);
        }
        let mut judged = chains.judge(&collected);
        if judged.errors.is_empty() {
            return Ok((collected, judged));
        }
        // With what else no host would launch.
        collected.errors.append(&mut judged.errors);
        Err(Refusal::new(collected.errors))
    }

    /// Tells the keeper whose pair it is to watch, and returns the processes that carry categories.
    fn tell_keeper<'c>(
        &self,
        pair: &'c ClaimedPair,
        starting: &mut Starting,
    ) -> &'c [ProcessLabels] {
        match pair {
            ClaimedPair::Verified(claim) => {
                starting.claimed(pair.context());
                self.warn_unproven(!claim.look.shows_all());
                &claim.look.processes
            }
            // Nothing that was collected carries categories by which its owner could be known.
            ClaimedPair::Unverified(_) => {
                starting.claimed_unverified(pair.context());
                &[]
            }
        }
    }

    /// Claims the level that was chosen, or a pair that is drawn.
    fn claim(
        &self,
        level: Option<Level>,
        domain: &Context,
        collected: &Collected,
        look: Look,
    ) -> Result<ClaimedPair, Refusal> {
        let host = self.host;
        if let Some(level) = level {
            let sharing = if self.options.share_level {
                Sharing::Meant
            } else {
                Sharing::Refused
            };
            let claim = mcs::claim_level(host, domain.at(level), sharing)?;
            return Ok(ClaimedPair::Verified(claim));
        }
        let range = mcs::range(self.own, self.options.mcs_range)?;
        let on_files = categories_on(collected);
        // What is done with a file that carries categories depends on the process that has them.
        let unverified = look == Look::Keeper && on_files.is_empty() && mcs::is_abundant(&range);
        let any_labelled = !on_files.is_empty();
        let avoid = [on_files, self.categories_in_journal()].concat();
        Ok(if unverified {
            ClaimedPair::Unverified(mcs::claim_unverified(host, domain, &range, &avoid)?)
        } else {
            let claim = mcs::claim(host, domain, &range, &avoid)?;
            // Whoever was missed may have what the files carry.
            if any_labelled && !claim.look.is_complete {
                return Err(PairError::Scan(std::io::Error::other(INCOMPLETE)).into());
            }
            ClaimedPair::Verified(claim)
        })
    }

    /// Returns the categories of journal entries: their guests may have ended, and still nobody else
    /// shall get them.
    fn categories_in_journal(&self) -> Vec<Categories> {
        let categories = |journal: &Journal, path: &PathBuf| {
            let context = journal.read(path).ok()?.context.parse::<Context>().ok()?;
            Some(context.categories())
        };
        let journals = journals::own().unwrap_or_default();
        journals
            .iter()
            .flat_map(|journal| {
                let paths = journal.entries().unwrap_or_default();
                paths
                    .into_iter()
                    .filter_map(move |path| categories(journal, &path))
            })
            .collect()
    }

    /// Tells whether nobody else has the pair that was claimed without a look: by the keeper's verdict, or
    /// by a look of this process if the keeper has ended without one.
    fn is_ours(&self, context: &Context, verdict: Option<PairVerdict>) -> Result<bool, Refusal> {
        match verdict {
            Some(PairVerdict::Taken) => return Ok(false),
            Some(found) => {
                self.warn_unproven(found == PairVerdict::Unproven);
                return Ok(true);
            }
            None => {}
        }
        let look = self.host.look().map_err(PairError::Scan)?;
        let ours = mcs::overlapping_process(&context.categories(), &look.processes).is_none();
        if ours {
            self.warn_unproven(!look.shows_all());
        }
        Ok(ours)
    }

    fn warn_unproven(&self, unproven: bool) {
        if unproven || !self.host.procfs().sees_all() {
            say(
                "warning: not all processes of this host show their labels here (hidepid, a PID \
                 namespace, the policy, or they start and end too fast): that nobody else has this \
                 guest's categories is not proven",
            );
        }
    }

    /// Asks about everything that will be done; refuses with every failure at once.
    fn check(&self, plan: &Plan, context: &Context) -> Result<inherited_fds::Repairs, Refusal> {
        say_all(plan);
        let mut repairs = inherited_fds::inspect(self.host, context)?;
        let mut refused = self.failures(plan, context)?;
        refused.append(&mut repairs.failures);
        stop_or_warn(refused, self.mode)?;
        Ok(repairs)
    }

    /// Returns everything in a plan that the policy will refuse the launcher or QEMU.
    ///
    /// # Errors
    /// What stops the launch whatever the policy says.
    pub fn failures(&self, plan: &Plan, context: &Context) -> Result<Vec<Message>, Refusal> {
        let mut fatal = plan.errors.clone();
        fatal.extend(plan.obstacles.iter().cloned());
        if !fatal.is_empty() {
            return Err(Refusal::new(fatal));
        }
        let (host, own, pinned) = (self.host, self.own, self.pinned);
        let mut failures = preflight::launcher(host, plan, own, pinned, context, self.privilege)?;
        if self.options.preflight != Some(Preflight::Off) {
            let refused = preflight::guest(host, plan)?;
            if self.options.preflight == Some(Preflight::Warn) {
                for failure in refused {
                    say(format_args!("warning: {failure}"));
                }
            } else {
                failures.extend(refused);
            }
        }
        Ok(failures)
    }
}

/// Says what the caller should know of a plan.
pub fn say_all(plan: &Plan) {
    for note in &plan.notes {
        say(format_args!("note: {note}"));
    }
    for warning in &plan.warnings {
        say(format_args!("warning: {warning}"));
    }
}

/// Starts a keeper. That takes as long as what this process does until it has something for it.
///
/// # Errors
/// That it cannot be started.
pub fn start_keeper(own: &Context) -> Result<Starting, Refusal> {
    Starting::begin(own).map_err(|error| refuse(client::cannot_start(error)))
}

/// Returns the categories that files about to be used still carry: their guests may have ended, and still
/// nobody else shall get them.
fn categories_on(collected: &Collected) -> Vec<Categories> {
    let labels = collected
        .resources
        .iter()
        .filter_map(|resource| resource.current.as_ref());
    labels
        .map(Context::categories)
        .filter(|categories| !categories.is_empty())
        .collect()
}

/// Refuses what the policy will refuse, or warns of it if the policy is not enforced.
///
/// # Errors
/// The failures, if SELinux is enforcing.
pub fn stop_or_warn(failures: Vec<Message>, mode: Mode) -> Result<(), Refusal> {
    if failures.is_empty() {
        return Ok(());
    }
    if mode == Mode::Enforcing {
        return Err(Refusal::new(failures));
    }
    for failure in failures {
        say(format_args!("warning (SELinux is permissive): {failure}"));
    }
    Ok(())
}

/// Returns what this process can do to files of others.
pub fn privilege() -> Privilege {
    Privilege {
        uid: Uid::effective().as_raw(),
        fowner: caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_FOWNER)
            .unwrap_or(false),
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
    }
}
