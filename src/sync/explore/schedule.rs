//! Decisions: what may happen next, and who chooses.

use std::fmt;

/// What may happen next. Numbers are threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Steps; where it is dead, the kernel sees to its next robust word.
    Run(u8),
    Kill(u8),
    /// The deadline of a sleeper passes.
    Timeout(u8),
    /// A sleeper wakes up for no reason.
    Spurious(u8),
    /// A sleeper is woken by a signal, and its thread wants to hear of it.
    Interrupt(u8),
    /// Of several sleepers this one gets the wake-up.
    Wake(u8),
    /// At rest: nothing more happens.
    End,
}

use Choice::*;

/// Where a decision is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before an operation that others may see.
    Operation,
    /// Before one that may wake others.
    Waking,
    /// Before one that only the kernel sees, should the thread be killed.
    Private,
    /// The thread waits for others without sleeping.
    Yield,
    /// The thread fell asleep, or ended.
    Blocked,
    /// All sleep or have ended.
    Rest,
    /// A wake-up has several takers.
    WakeUp,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub kills: u8,
    pub timeouts: u8,
    /// Changes of who runs where it could have gone on; only [`Depth`] minds.
    pub preemptions: u8,
}

/// The decisions of a run that differ from the first option.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    choices: Vec<(u32, Choice)>,
}

impl Schedule {
    pub fn push(&mut self, decision: u32, choice: Choice) {
        self.choices.push((decision, choice));
    }

    pub fn len(&self) -> usize {
        self.choices.len()
    }

    pub fn without(&self, index: usize) -> Schedule {
        let mut shorter = self.clone();
        shorter.choices.remove(index);
        shorter
    }

    pub fn parse(text: &str) -> Option<Schedule> {
        let mut schedule = Schedule::default();
        for word in text.split_whitespace() {
            let (decision, choice) = word.split_once(|c: char| c.is_ascii_alphabetic())?;
            let thread = choice.parse().unwrap_or(0);
            let choice = match word.as_bytes()[decision.len()] {
                b'r' => Run(thread),
                b'k' => Kill(thread),
                b't' => Timeout(thread),
                b's' => Spurious(thread),
                b'i' => Interrupt(thread),
                b'w' => Wake(thread),
                b'e' => End,
                _ => return None,
            };
            schedule.push(decision.parse().ok()?, choice);
        }
        Some(schedule)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, (decision, choice)) in self.choices.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            match choice {
                Run(thread) => write!(f, "{space}{decision}r{thread}")?,
                Kill(thread) => write!(f, "{space}{decision}k{thread}")?,
                Timeout(thread) => write!(f, "{space}{decision}t{thread}")?,
                Spurious(thread) => write!(f, "{space}{decision}s{thread}")?,
                Interrupt(thread) => write!(f, "{space}{decision}i{thread}")?,
                Wake(thread) => write!(f, "{space}{decision}w{thread}")?,
                End => write!(f, "{space}{decision}e")?,
            }
        }
        Ok(())
    }
}

/// Who chooses.
pub enum Chooser {
    Replay(Schedule),
    Random(Random),
    Depth(Depth),
}

impl Chooser {
    pub fn replay(schedule: Schedule) -> Chooser {
        Chooser::Replay(schedule)
    }

    pub fn random(seed: u64, length: u32, bounds: Bounds, threads: usize) -> Chooser {
        Chooser::Random(Random::new(seed, length, bounds, threads))
    }

    pub fn depth(depth: Depth) -> Chooser {
        Chooser::Depth(depth)
    }

    pub fn into_depth(self) -> Depth {
        match self {
            Chooser::Depth(depth) => depth,
            _ => Depth::new(),
        }
    }

    /// One of `options`, of which the first is the obvious one. `current` is the thread that asks.
    pub fn choose(&mut self, decision: u32, point: Point, current: Option<u8>, options: &[Choice], left: &Bounds) -> Choice {
        match self {
            Chooser::Replay(schedule) => {
                let listed = schedule.choices.iter().find(|(at, _)| *at == decision).map(|&(_, choice)| choice);
                listed.filter(|choice| options.contains(choice)).unwrap_or(options[0])
            }
            Chooser::Random(random) => random.choose(decision, point, current, options),
            Chooser::Depth(depth) => depth.choose(point, current, options, left),
        }
    }
}

/// Few changes of who runs, at random places: most mistakes need only two or three events in the right order, and a schedule with
/// a change at every step has them in the right order less often than one with few changes.
pub struct Random {
    state: u64,
    /// The thread with the highest runs.
    priorities: Vec<i32>,
    lowest: i32,
    /// One in so many steps changes who runs, whatever the priorities; 0 = none does.
    walk: u64,
    changes: Vec<u32>,
    kills: Vec<u32>,
    /// A kill about the so-manieth wake-up, so many steps after it: where most mistakes are.
    aimed: Option<(u64, u32)>,
    wake_ups: u64,
    timeouts: Vec<u32>,
}

impl Random {
    fn new(seed: u64, length: u32, bounds: Bounds, threads: usize) -> Random {
        let mut random = Random {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            priorities: vec![0; threads],
            lowest: 0,
            walk: 0,
            changes: Vec::new(),
            kills: Vec::new(),
            aimed: None,
            wake_ups: 0,
            timeouts: Vec::new(),
        };
        for thread in 0..threads {
            random.priorities[thread] = 1 + random.below(1 << 20) as i32;
        }
        random.walk = [0, 0, 3, 10, 30][random.below(5) as usize];
        let changes = random.below(6);
        random.changes = random.places(changes, length);
        let kills = if bounds.kills == 0 { 0 } else { random.below(u64::from(bounds.kills) + 2).min(bounds.kills.into()) };
        if kills > 0 && random.below(2) == 0 {
            random.aimed = Some((random.below(6), random.below(4) as u32));
        }
        random.kills = random.places(kills - u64::from(random.aimed.is_some()), length);
        let timeouts = random.below(u64::from(bounds.timeouts) + 1);
        random.timeouts = random.places(timeouts, length);
        random
    }

    fn places(&mut self, count: u64, length: u32) -> Vec<u32> {
        (0..count).map(|_| self.below(u64::from(length.max(1))) as u32).collect()
    }

    fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.state;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ value >> 31) % bound
    }

    fn any(&mut self, options: &[Choice], wanted: impl Fn(&Choice) -> bool) -> Option<Choice> {
        let count = options.iter().filter(|choice| wanted(choice)).count();
        if count == 0 {
            return None;
        }
        let index = self.below(count as u64) as usize;
        options.iter().filter(|choice| wanted(choice)).nth(index).copied()
    }

    fn choose(&mut self, decision: u32, point: Point, current: Option<u8>, options: &[Choice]) -> Choice {
        if matches!(point, Point::WakeUp | Point::Rest) {
            // At rest an unused kill may still be good for something.
            return self.any(options, |_| true).unwrap_or(options[0]);
        }
        if point == Point::Waking {
            if let Some((_, delay)) = self.aimed.filter(|&(which, _)| which == self.wake_ups) {
                self.kills.push(decision + delay);
            }
            self.wake_ups += 1;
        }
        // A place is used at the first opportunity after it.
        if take_due(&mut self.kills, decision, options.iter().any(|choice| matches!(choice, Kill(_)))) {
            let own = current.map(Kill).filter(|kill| options.contains(kill) && self.below(4) != 0);
            let kill = own.or_else(|| self.any(options, |choice| matches!(choice, Kill(_))));
            return kill.unwrap_or(options[0]);
        }
        if point == Point::Private {
            return options[0];
        }
        let passes_time = |choice: &Choice| matches!(choice, Timeout(_) | Spurious(_) | Interrupt(_));
        if take_due(&mut self.timeouts, decision, options.iter().any(passes_time)) {
            return self.any(options, passes_time).unwrap_or(options[0]);
        }
        let changes = take_due(&mut self.changes, decision, true);
        if let Some(current) = current.filter(|_| changes || point == Point::Yield) {
            self.lowest -= 1;
            self.priorities[usize::from(current)] = self.lowest;
        }
        if self.walk != 0 && (point == Point::Blocked || self.below(self.walk) == 0) {
            return self.any(options, |choice| matches!(choice, Run(_))).unwrap_or(options[0]);
        }
        if self.walk != 0 && point != Point::Yield {
            return options[0];
        }
        let priority = |choice: &&Choice| match choice {
            Run(thread) => self.priorities[usize::from(*thread)],
            _ => i32::MIN,
        };
        options.iter().max_by_key(priority).copied().unwrap_or(options[0])
    }
}

/// Whether one of `places` is reached; it is used up then.
fn take_due(places: &mut Vec<u32>, decision: u32, possible: bool) -> bool {
    let due = places.iter().position(|&place| place <= decision).filter(|_| possible);
    due.map(|index| places.swap_remove(index)).is_some()
}

/// All schedules, one after the other: the options at each decision and which of them is taken.
pub struct Depth {
    nodes: Vec<(Vec<Choice>, usize)>,
    at: usize,
}

impl Depth {
    pub fn new() -> Depth {
        Depth { nodes: Vec::new(), at: 0 }
    }

    /// Turns to the next schedule. `false`: that was the last one.
    pub fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((options, taken)) = self.nodes.last_mut() {
            *taken += 1;
            if *taken < options.len() {
                return true;
            }
            self.nodes.pop();
        }
        false
    }

    fn choose(&mut self, point: Point, current: Option<u8>, options: &[Choice], left: &Bounds) -> Choice {
        let first = options[0];
        let wanted = |choice: &Choice| match (point, choice) {
            _ if *choice == first => true,
            (Point::Operation | Point::Waking, Run(_)) => left.preemptions > 0,
            (Point::Yield, Run(thread)) => Some(*thread) == current,
            // Killing somebody who could step is letting it step and killing it then. Sleepers are killed where somebody falls asleep.
            (Point::Operation | Point::Waking | Point::Private, Kill(thread)) => Some(*thread) == current,
            (Point::Blocked, Kill(thread)) => !options.contains(&Run(*thread)),
            (Point::Yield, Kill(_)) | (_, Spurious(_) | Interrupt(_)) => false,
            (Point::Operation | Point::Waking | Point::Yield, Timeout(_)) => false,
            _ => true,
        };
        let mut allowed = options.iter().filter(|choice| wanted(choice));
        let (_, Some(_)) = (allowed.next(), allowed.next()) else { return first };
        if self.at == self.nodes.len() {
            self.nodes.push((options.iter().copied().filter(wanted).collect(), 0));
        }
        let (options, taken) = &self.nodes[self.at];
        self.at += 1;
        options[*taken]
    }
}

impl Choice {
    pub fn thread(&self) -> u8 {
        match *self {
            Run(thread) | Kill(thread) | Timeout(thread) | Spurious(thread) | Interrupt(thread) | Wake(thread) => thread,
            End => u8::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_can_be_written_and_read() {
        let text = "3r1 17k0 20t2 21s1 22i0 40w3 99e";
        assert_eq!(Schedule::parse(text).unwrap().to_string(), text);
        assert!(Schedule::parse("3x1").is_none());
    }

    #[test]
    fn depth_takes_every_option_once() {
        let mut depth = Depth::new();
        let left = Bounds { kills: 1, timeouts: 0, preemptions: 1 };
        let mut seen = Vec::new();
        loop {
            let first = depth.choose(Point::Operation, Some(0), &[Run(0), Run(1), Kill(0), Kill(1)], &left);
            let second = depth.choose(Point::Blocked, Some(0), &[Run(1), Run(2)], &left);
            seen.push((first, second));
            if !depth.next() {
                break;
            }
        }
        assert_eq!(seen.len(), 6);
        assert!(!seen.iter().any(|&(first, _)| first == Kill(1)));
    }
}
