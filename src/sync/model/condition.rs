//! The model of `sync::condition`: waiters in a line of robust seats, the oldest asleep on the bell, every other one on the seat of the
//! next older one; credits for the oldest. The lock and the section are single steps; the seats are what `sync::robust` makes of
//! them, for their sleepers are what this is about.

use super::checker::{Kind, Model, Steps};
use super::kernel::{Kernel, OWNER, OWNER_DIED, WAITERS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Right,
    /// The credits are there before the oldest is woken, and the bell says that it is awake.
    PublishBeforeWake,
    /// Takes the section over from a dead notifier and wakes nobody.
    RecoveryDoesNotWake,
    /// A waiter takes its credit before it has its lock again.
    CreditBeforeLock,
    /// Seats are not on their owners' lists.
    SeatNotLinked,
    /// Sleeps on a seat without looking whose it is by now.
    SeatOfAnother,
    /// A mark that nobody sleeps under is not cleared.
    MarkStays,
}

#[derive(Clone, Copy, Debug)]
pub struct Condition {
    pub variant: Variant,
    pub waiters: usize,
    pub waits: u8,
    pub notifiers: usize,
    pub notifies: u8,
    pub by: u8,
    pub kills: u8,
    pub timeouts: bool,
}

const MAX: usize = 5;
const SEATS: usize = 3;
const LOCK: usize = 0;
const SECTION: usize = 1;
const BELL: usize = 2;
const SEAT: usize = 3;
const ASLEEP: u8 = 1;
const WAKING: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Acquire,
    Sit,
    Register,
    Registered,
    Unlock,
    Look,
    Looked,
    SleepOnBell,
    Mark,
    CheckTicket,
    SleepBehind,
    Relock,
    StandUp,
    Forget,
    Take,
    StoodUp,
    Give,
    GiveMarked,
    WakeNext,
    ClearTake,
    ClearMark,
    ClearWakeAll,
    Clear,
    ClearGive,
    Release,
    Notify,
    Waking,
    Wake,
    Publish,
    Reset,
    Notified,
    Recover,
    RecoverReset,
}

use At::*;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    at: At,
    /// Where a recovery, or a section, goes on.
    then: At,
    rounds: u8,
    seat: u8,
    ticket: u8,
    /// The seat ahead, its owner's number and its ticket.
    ahead: (u8, u8, u8),
    notified: bool,
}

const IDLE: Process = Process { at: Acquire, then: Acquire, rounds: 0, seat: 0, ticket: 0, ahead: (0, 0, 0), notified: false };

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    kernel: Kernel<6, MAX>,
    processes: [Process; MAX],
    /// Number and ticket of who waits in each seat.
    seats: [(u8, u8); SEATS],
    next: u8,
    horizon: u8,
    credits: u8,
    kills: u8,
    /// Credits that were made, and those that went to a waiter that had its lock.
    made: u8,
    taken: u8,
}

impl State {
    fn is_waiting(&self, seat: usize) -> bool {
        let (who, ticket) = self.seats[seat];
        ticket != 0 && who != 0 && self.kernel.words[SEAT + seat] & OWNER == who
    }

    fn waiting(&self) -> impl Iterator<Item = (usize, u8, u8)> + '_ {
        (0..SEATS).filter(|&seat| self.is_waiting(seat)).map(|seat| (seat, self.seats[seat].0, self.seats[seat].1))
    }

    fn forget_the_gone(&mut self) {
        for seat in 0..SEATS {
            if !self.is_waiting(seat) {
                self.seats[seat].1 = 0;
            }
        }
    }
}

impl Model for Condition {
    type State = State;

    fn initial(&self) -> State {
        let process = |index| match index {
            _ if index < self.waiters => Process { rounds: self.waits, ..IDLE },
            _ if index < self.waiters + self.notifiers => Process { at: Notify, rounds: self.notifies, ..IDLE },
            _ => IDLE,
        };
        State {
            kernel: Kernel::new(),
            processes: std::array::from_fn(process),
            seats: [(0, 0); SEATS],
            next: 1,
            horizon: 0,
            credits: 0,
            kills: self.kills,
            made: 0,
            taken: 0,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for process in 0..self.waiters + self.notifiers {
            for kernel in state.kernel.bury(process) {
                steps.go(process, State { kernel, ..state.clone() });
            }
            let me = state.processes[process];
            if !state.kernel.is_alive(process) || me.rounds == 0 {
                continue;
            }
            let asleep = state.kernel.sleeps_on(process).is_some();
            if !asleep {
                self.step(state, process, steps);
            } else {
                let mut woken = state.clone();
                woken.kernel.rouse(process);
                steps.add(Kind::Spurious, process, woken);
            }
            if self.timeouts && asleep {
                let mut late = state.clone();
                late.kernel.rouse(process);
                late.processes[process].at = Relock;
                steps.add(Kind::Timeout, process, late);
            }
            if state.kills > 0 && !matches!(me.at, Acquire | Notify) {
                let mut after = state.clone();
                after.kills -= 1;
                after.kernel.kill(process);
                after.processes[process] = IDLE;
                if self.variant == Variant::SeatNotLinked {
                    (SEAT..SEAT + SEATS).for_each(|seat| after.kernel.unlink(process, seat));
                }
                steps.add(Kind::Kill, process, after);
            }
        }
    }

    fn check(&self, state: &State) -> Result<(), String> {
        if state.taken > state.made { Err("somebody was woken by nothing".into()) } else { Ok(()) }
    }

    fn check_rest(&self, state: &State) -> Result<(), String> {
        for process in (0..self.waiters + self.notifiers).filter(|&process| state.processes[process].rounds != 0) {
            let me = state.processes[process];
            if process >= self.waiters {
                return Err(format!("{process} cannot notify"));
            }
            if state.kernel.sleeps_on(process).is_none() {
                return Err(format!("{process} stands at {:?}", me.at));
            }
            if state.made > state.taken && me.ticket < state.horizon {
                return Err(format!(
                    "{process} sleeps, and {} notifications of {} came to nobody",
                    state.made - state.taken,
                    state.made
                ));
            }
        }
        let asleep = (0..self.waiters).filter(|&process| state.kernel.sleeps_on(process).is_some()).count();
        let registered = (0..self.waiters).any(|process| state.kernel.sleeps_on(process) == Some(BELL));
        if asleep > 0 && (!registered || state.kernel.words[BELL] == 0) {
            return Err(format!("{asleep} sleep and the next notification would wake nobody"));
        }
        Ok(())
    }

    fn place(&self, state: &State, process: usize) -> String {
        state.kernel.place(process, state.processes[process].at)
    }

    fn shared(&self, state: &State) -> String {
        let State { seats, credits, horizon, .. } = state;
        let words = state.kernel.describe(&["lock", "section", "bell", "seat 0", "seat 1", "seat 2"]);
        format!("{words}{seats:?}  {credits} below {horizon}")
    }
}

impl Condition {
    fn step(&self, state: &State, process: usize, steps: &mut Steps<State>) {
        let mut after = state.clone();
        let variant = self.variant;
        let mut me = state.processes[process];
        let tid = process as u8 + 1;
        let seat = usize::from(me.seat);
        let word = state.kernel.words[SEAT + seat];
        let bell = state.kernel.words[BELL];
        // Into the section, and what is to be done there.
        let then = match me.at {
            Register => Some(Registered),
            Look => Some(Looked),
            StandUp => Some(Forget),
            Notify => Some(Waking),
            _ => None,
        };
        if let Some(then) = then {
            if me.at == Notify && state.seats == [(0, 0); SEATS] {
                // Nobody has waited yet.
                me.rounds -= 1;
                after.processes[process] = me;
                steps.go(process, after);
                return;
            }
            match after.kernel.take(process, SECTION) {
                None => return,
                Some(died) => {
                    me.then = then;
                    me.at = if died { Recover } else { then };
                }
            }
            after.processes[process] = me;
            steps.go(process, after);
            return;
        }
        me.at = match me.at {
            Acquire => match after.kernel.take_linked(process, LOCK) {
                None => return,
                Some(_) => Sit,
            },
            Sit => {
                let Some(free) = (0..SEATS).find(|&seat| state.kernel.words[SEAT + seat] & OWNER == 0) else { return };
                after.kernel.words[SEAT + free] = state.kernel.words[SEAT + free] & WAITERS | tid;
                after.kernel.link(process, SEAT + free);
                after.seats[free].0 = 0;
                me.seat = free as u8;
                Register
            }
            Registered => {
                after.forget_the_gone();
                me.ticket = state.next;
                after.next += 1;
                after.seats[seat] = (tid, me.ticket);
                after.kernel.give(process, SECTION);
                Unlock
            }
            Unlock => {
                after.kernel.give(process, LOCK);
                Look
            }
            Looked => {
                after.forget_the_gone();
                let ahead = after.waiting().filter(|&(_, _, ticket)| ticket < me.ticket).max_by_key(|&(_, _, ticket)| ticket);
                after.kernel.give(process, SECTION);
                match ahead {
                    Some((seat, who, ticket)) => {
                        me.ahead = (seat as u8, who, ticket);
                        Mark
                    }
                    None if state.credits > 0 && me.ticket < state.horizon => {
                        me.notified = true;
                        if variant == Variant::CreditBeforeLock {
                            after.credits -= 1;
                        }
                        Relock
                    }
                    None => {
                        after.kernel.words[BELL] = ASLEEP;
                        SleepOnBell
                    }
                }
            }
            SleepOnBell => {
                after.kernel.wait(process, BELL, ASLEEP);
                Look
            }
            Mark => {
                let (seat, who, _) = me.ahead;
                let ahead = &mut after.kernel.words[SEAT + usize::from(seat)];
                if *ahead & OWNER == who {
                    *ahead = who | WAITERS;
                    if variant == Variant::SeatOfAnother { SleepBehind } else { CheckTicket }
                } else {
                    Look
                }
            }
            CheckTicket if state.seats[usize::from(me.ahead.0)].1 == me.ahead.2 => SleepBehind,
            CheckTicket => Look,
            SleepBehind => {
                after.kernel.wait(process, SEAT + usize::from(me.ahead.0), me.ahead.1 | WAITERS);
                Look
            }
            Relock => match after.kernel.take_linked(process, LOCK) {
                None => return,
                Some(_) => StandUp,
            },
            Forget => {
                after.forget_the_gone();
                let older = after.waiting().filter(|&(_, _, ticket)| ticket < me.ticket).count() as u8;
                me.notified |= me.ticket < state.horizon && older < state.credits;
                after.seats[seat].1 = 0;
                Take
            }
            Take => {
                let others = after.waiting().filter(|&(_, _, ticket)| ticket < state.horizon).count() as u8;
                if me.notified {
                    after.taken += 1;
                }
                let taken = u8::from(me.notified && variant != Variant::CreditBeforeLock);
                after.credits = state.credits.saturating_sub(taken);
                let lost = after.credits.saturating_sub(others);
                after.made -= lost;
                after.credits -= lost;
                StoodUp
            }
            StoodUp => {
                after.kernel.give(process, SECTION);
                Give
            }
            Give => {
                after.kernel.set_pending(process, SEAT + seat);
                after.kernel.unlink(process, SEAT + seat);
                if word == tid {
                    after.kernel.words[SEAT + seat] = 0;
                    after.kernel.clear_pending(process);
                    Release
                } else {
                    GiveMarked
                }
            }
            GiveMarked => {
                after.kernel.words[SEAT + seat] = word & WAITERS;
                WakeNext
            }
            WakeNext => {
                for kernel in state.kernel.wake_one(SEAT + seat) {
                    let nobody = kernel == state.kernel;
                    let mut after = State { kernel, ..state.clone() };
                    if nobody && variant != Variant::MarkStays {
                        me.at = ClearTake;
                    } else {
                        after.kernel.clear_pending(process);
                        me.at = Release;
                    }
                    after.processes[process] = me;
                    steps.go(process, after);
                }
                return;
            }
            ClearTake if word == WAITERS => {
                after.kernel.words[SEAT + seat] = tid | WAITERS;
                ClearMark
            }
            ClearMark if word == tid | WAITERS => {
                after.kernel.words[SEAT + seat] = word | OWNER_DIED;
                ClearWakeAll
            }
            ClearWakeAll => {
                after.kernel.wake_all(SEAT + seat);
                Clear
            }
            Clear => {
                if word == tid | WAITERS | OWNER_DIED {
                    after.kernel.words[SEAT + seat] = tid;
                }
                ClearGive
            }
            ClearMark => ClearGive,
            ClearGive if word & WAITERS != 0 => GiveMarked,
            ClearGive => {
                after.kernel.words[SEAT + seat] = 0;
                after.kernel.clear_pending(process);
                Release
            }
            ClearTake => {
                after.kernel.clear_pending(process);
                Release
            }
            Release => {
                after.kernel.give(process, LOCK);
                me = Process { rounds: me.rounds - 1, ..IDLE };
                Acquire
            }
            Waking if bell == 0 => Publish,
            Waking if variant == Variant::PublishBeforeWake => Publish,
            Waking => {
                after.kernel.words[BELL] = WAKING;
                Wake
            }
            Wake => {
                after.kernel.wake_all(BELL);
                if variant == Variant::PublishBeforeWake { Notified } else { Publish }
            }
            Publish => {
                after.forget_the_gone();
                let waiting = after.waiting().count() as u8;
                let served = after.waiting().filter(|&(_, _, ticket)| ticket < state.horizon).count() as u8;
                let there = state.credits.min(served);
                after.horizon = state.next;
                after.credits = (there + self.by).min(waiting);
                after.made = (state.made + after.credits).saturating_sub(state.credits);
                match (bell, variant) {
                    (0, _) => Notified,
                    (_, Variant::PublishBeforeWake) => {
                        after.kernel.words[BELL] = 0;
                        Wake
                    }
                    _ => Reset,
                }
            }
            Reset => {
                after.kernel.words[BELL] = 0;
                Notified
            }
            Notified => {
                after.kernel.give(process, SECTION);
                me.rounds -= 1;
                Notify
            }
            Recover if bell == WAKING => {
                if variant != Variant::RecoveryDoesNotWake {
                    after.kernel.wake_all(BELL);
                }
                RecoverReset
            }
            Recover => me.then,
            RecoverReset => {
                after.kernel.words[BELL] = 0;
                me.then
            }
            Register | Look | StandUp | Notify => unreachable!("the section is above"),
        };
        after.processes[process] = me;
        steps.go(process, after);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{expect_right, expect_wrong, size};
    use super::*;

    fn small() -> Condition {
        Condition { variant: Variant::Right, waiters: 2, waits: 1, notifiers: 1, notifies: 1, by: 1, kills: 1, timeouts: false }
    }

    #[test]
    fn no_death_eats_a_notification() {
        expect_right(&Condition { notifiers: 2, kills: 1 + size(1), ..small() });
        expect_right(&Condition { waiters: 3, notifies: 2, kills: size(1), ..small() });
        expect_right(&Condition { by: 2, kills: 2, timeouts: true, ..small() });
        expect_right(&Condition { waits: 2, notifies: 2, kills: 1, ..small() });
    }

    #[test]
    fn mutants_are_found() {
        expect_wrong(&Condition { variant: Variant::PublishBeforeWake, notifiers: 2, ..small() });
        expect_wrong(&Condition { variant: Variant::RecoveryDoesNotWake, notifiers: 2, ..small() });
        expect_wrong(&Condition { variant: Variant::CreditBeforeLock, ..small() });
        expect_wrong(&Condition { variant: Variant::SeatNotLinked, ..small() });
        expect_wrong(&Condition { variant: Variant::SeatOfAnother, waits: 2, notifies: 2, kills: 0, ..small() });
        expect_wrong(&Condition { variant: Variant::MarkStays, waits: 2, notifies: 2, kills: 0, ..small() });
    }
}
