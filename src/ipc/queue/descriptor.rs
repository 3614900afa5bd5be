//! The descriptor of a pollable queue: see the head of `queue`.

use super::*;

impl Queue {
    /// Readable while there may be a message, or the queue is closed; stays the queue's. `None`: it is not pollable.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.doorbell.as_ref().map(|doorbell| doorbell.number())
    }

    /// Wakes the consumers' leader if it sleeps, and makes the descriptor readable if it is silent. Under the producers' word, before
    /// the publication.
    #[inline]
    pub(super) fn ring_consumers<W: Words>(&self, w: W) {
        if w.load(self.shared.producers.bell(), Relaxed) != 0 {
            self.ring_consumers_asleep(w);
        }
    }

    #[cold]
    fn ring_consumers_asleep<W: Words>(&self, w: W) {
        let side = &self.shared.producers;
        self.make_readable(w);
        let bell = w.load(side.bell(), Relaxed);
        if bell & bell::ASLEEP != 0 {
            w.store(side.bell(), bell & !bell::ASLEEP, Relaxed);
            w.wake(side.bell(), 1);
        }
    }

    /// Under the producers' word.
    pub(super) fn make_readable<W: Words>(&self, w: W) {
        let side = &self.shared.producers;
        let Some(doorbell) = &self.doorbell else { return };
        let bell = w.load(side.bell(), Relaxed);
        if bell & bell::SILENT == 0 {
            return;
        }
        let loud = bell & !bell::SILENT;
        if mutant::is("loud_before_token") {
            w.store(side.bell(), loud, Relaxed);
            w.relax(0);
        }
        // Where this process has closed the descriptor somebody else will have to.
        if doorbell.ring() {
            w.store(side.bell(), loud, Relaxed);
        }
    }

    /// A producer, or who made it silent, ended inside: there may be a token although the bell says that there is none.
    pub(super) fn recover_descriptor<W: Words>(&self, w: W) {
        if let Some(doorbell) = &self.doorbell {
            if w.load(self.shared.producers.bell(), Relaxed) & bell::SILENT != 0 {
                doorbell.clear();
            }
        }
    }

    /// A get came to nothing: makes the descriptor silent, if that is still true, and gives memory back.
    pub(super) fn get_nothing<W: Words>(&self, w: W, step: Step, capacity: usize) -> Error {
        if let (Step::Nothing, Some(doorbell)) = (&step, &self.doorbell) {
            self.make_silent(w, doorbell);
        }
        if self.grows && matches!(step, Step::Nothing) {
            self.give_back_now(w);
        }
        get_error(step, capacity)
    }

    /// Where the producers' word is not to be had the descriptor stays readable: a false alarm.
    #[cold]
    fn make_silent<W: Words>(&self, w: W, doorbell: &Doorbell) {
        let side = &self.shared.producers;
        let died = w.load(&side.section.word, Relaxed) & OWNER_DIED != 0;
        if w.load(side.bell(), Relaxed) & bell::SILENT != 0 && !died {
            return;
        }
        // The caller's time is over.
        match robust::try_take(w, &side.section) {
            Some(Taken::Clean) => {}
            Some(Taken::OwnerDied) => self.recover_producers(w, Side::Consumer),
            None => return,
        }
        let bell = w.load(side.bell(), Relaxed);
        if !self.has_message(w) && w.load(side.closed(), Relaxed) == 0 && bell & bell::SILENT == 0 {
            if mutant::is("token_before_silent") {
                doorbell.clear();
                w.store(side.bell(), bell | bell::SILENT, Relaxed);
            } else {
                w.store(side.bell(), bell | bell::SILENT, Relaxed);
                doorbell.clear();
            }
        }
        robust::give(w, &side.section);
    }
}
