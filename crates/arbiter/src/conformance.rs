//! What every store that is an arbiter must do, as one test that the tests of each store run.
//!
//! A store is a [`Place`]: it can be made anew, be reached by several hosts, and be out of reach. Whoever adds a store
//! implements that and calls [`check`]. It panics where a rule is broken: it is for tests.
//!
//! Not here: claims that many make at the same moment. No threads can be named in this crate; each store that has some
//! tests that for itself.

use crate::{Arbiter, Claim, Decision, Secret, first_generation};
use alloc::string::ToString;
use core::fmt::Debug;
use pollux_vocab::Generation;

/// A store under test.
pub trait Place {
    /// How a host reaches it.
    type Host: Arbiter<Error: Debug>;

    /// Another host that reaches this store.
    fn host(&mut self) -> Self::Host;

    /// From here on hosts that reach the store get no answer from it, or do again.
    fn set_reachable(&mut self, reachable: bool);
}

/// The VM that is claimed.
const VM: &str = "castor";

fn claim(generation: u64, holder: &str, after: Option<&str>) -> Claim {
    Claim {
        vm: VM.into(),
        generation: Generation(generation),
        holder: holder.into(),
        after: after.map(ToString::to_string),
        secret: Secret([generation as u8; 32]),
    }
}

fn lost<E>(holder: &str) -> Result<Decision, E> {
    Ok(Decision::Lost { holder: holder.into() })
}

/// Whether two answers are the same, and no errors.
fn agree<T: PartialEq + Debug, E: Debug>(what: &str, found: Result<T, E>, wanted: T) {
    match found {
        Ok(found) => assert_eq!(found, wanted, "{what}"),
        Err(error) => panic!("{what}: the store is in reach, and says {error:?}"),
    }
}

/// Tries every rule on stores that `fresh` makes, each an empty one.
pub fn check<P: Place>(mut fresh: impl FnMut() -> P) {
    each_generation_is_given_to_one_and_to_that_one_again(&mut fresh());
    a_claim_is_decided_only_where_the_one_before_it_stands(&mut fresh());
    what_was_claimed_is_read_by_every_host_as_it_was_written(&mut fresh());
    an_end_is_its_holders_and_leaves_the_vm_free(&mut fresh());
    an_end_goes_behind_what_its_holder_won_without_hearing_of_it(&mut fresh());
    a_place_out_of_reach_never_says_no(&mut fresh());
}

fn each_generation_is_given_to_one_and_to_that_one_again<P: Place>(place: &mut P) {
    let [mut a, mut b] = [place.host(), place.host()];
    agree("the first", a.claim(&claim(1, "a", None)), Decision::Won);
    agree("asked again", a.claim(&claim(1, "a", None)), Decision::Won);
    let other = b.claim(&claim(1, "b", None));
    assert!(other.is_ok_and(|decision| Ok::<_, ()>(decision) == lost("a")), "given once, and said to whom");
    let secret = Claim { secret: Secret::default(), ..claim(1, "a", None) };
    assert!(b.claim(&secret).is_ok_and(|d| d != Decision::Won), "a name alone wins nothing");
    agree("another VM", b.claim(&Claim { vm: "castor.2".into(), ..claim(1, "b", None) }), Decision::Won);
    agree("the next one", b.claim(&claim(2, "b", Some("a"))), Decision::Won);
    agree("what is spent stays whose it was", a.claim(&claim(1, "a", None)), Decision::Won);
    assert!(
        a.claim(&claim(2, "a", Some("a"))).is_ok_and(|d| Ok::<_, ()>(d) == lost("b")),
        "and is not two's"
    );
}

fn a_claim_is_decided_only_where_the_one_before_it_stands<P: Place>(place: &mut P) {
    let mut a = place.host();
    agree("an empty store", a.claim(&claim(2, "b", Some("a"))), Decision::Elsewhere);
    agree("not the first", a.claim(&claim(2, "b", None)), Decision::Elsewhere);
    agree("the first", a.claim(&claim(1, "c", None)), Decision::Won);
    agree("another pair's store", a.claim(&claim(2, "b", Some("a"))), Decision::Elsewhere);
    agree("an old copy", a.claim(&claim(3, "c", Some("c"))), Decision::Elsewhere);
    agree("nothing was claimed", a.newest(VM), Some(claim(1, "c", None)));
}

fn what_was_claimed_is_read_by_every_host_as_it_was_written<P: Place>(place: &mut P) {
    let [mut a, mut b] = [place.host(), place.host()];
    agree("nobody yet", b.newest(VM), None);
    agree("nobody yet", b.standing(VM, Generation(1)), None);
    for generation in 1..=12 {
        let after = (generation > 1).then_some("a");
        agree("won", a.claim(&claim(generation, "a", after)), Decision::Won);
        agree("the newest, by number and not by name", b.newest(VM), Some(claim(generation, "a", after)));
    }
    agree("with its secret", b.standing(VM, Generation(2)), Some(claim(2, "a", Some("a"))));
    agree("not there", b.standing(VM, Generation(13)), None);
    agree("of another VM", b.newest("casto"), None);
    agree("whose name begins alike", b.newest("castor.generation-1"), None);
}

fn an_end_is_its_holders_and_leaves_the_vm_free<P: Place>(place: &mut P) {
    let [mut a, mut b] = [place.host(), place.host()];
    agree("never begun", a.end(VM, Generation(1), "a"), Decision::Elsewhere);
    agree("won", a.claim(&claim(1, "a", None)), Decision::Won);
    agree("a stranger", b.end(VM, Generation(1), "b"), Decision::Elsewhere);
    agree("ends nothing", b.newest(VM), Some(claim(1, "a", None)));
    agree("a survivor", b.claim(&claim(2, "b", Some("a"))), Decision::Won);
    assert!(a.end(VM, Generation(1), "a").is_ok_and(|d| d != Decision::Won), "the old primary ends nothing");
    agree("the survivor has it", a.newest(VM), Some(claim(2, "b", Some("a"))));
    for _ in 0..2 {
        agree("an end, and the same again", b.end(VM, Generation(2), "b"), Decision::Won);
    }
    agree("for nobody", a.newest(VM), Some(Claim::end(VM, Generation(2), "b")));
    assert!(a.claim(&claim(3, "a", Some("b"))).is_ok_and(|d| d != Decision::Won), "who slept wins nothing");
    let newest = a.newest(VM).expect("in reach");
    let after = newest.as_ref().map(|end| end.holder.clone());
    assert_eq!(first_generation(newest.as_ref()), Ok(Generation(4)), "behind the end");
    agree("started anew", a.claim(&Claim { after, ..claim(4, "a", None) }), Decision::Won);
}

fn an_end_goes_behind_what_its_holder_won_without_hearing_of_it<P: Place>(place: &mut P) {
    let mut a = place.host();
    for (generation, after) in [(1, None), (2, Some("a"))] {
        agree("won", a.claim(&claim(generation, "a", after)), Decision::Won);
    }
    agree("ended", a.end(VM, Generation(1), "a"), Decision::Won);
    agree("behind the newest", a.newest(VM), Some(Claim::end(VM, Generation(2), "a")));
}

fn a_place_out_of_reach_never_says_no<P: Place>(place: &mut P) {
    let mut a = place.host();
    agree("won", a.claim(&claim(1, "a", None)), Decision::Won);
    place.set_reachable(false);
    for wanted in [claim(2, "a", Some("a")), claim(1, "b", None), claim(7, "b", Some("a"))] {
        let answer = a.claim(&wanted);
        let decided = matches!(answer, Ok(Decision::Won | Decision::Lost { .. }));
        assert!(!decided, "out of reach, and decided: {answer:?}");
    }
    place.set_reachable(true);
    // Perhaps what was asked for was done and the answer lost: asking again wins all the same.
    agree("asked again", a.claim(&claim(2, "a", Some("a"))), Decision::Won);
    assert!(
        a.claim(&claim(2, "b", Some("a"))).is_ok_and(|d| Ok::<_, ()>(d) == lost("a")),
        "and is nobody else's"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use alloc::rc::Rc;
    use core::cell::RefCell;

    /// A ledger that several reach, and sometimes nobody.
    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<(Ledger, Cut)>>);

    #[derive(Clone, Copy, PartialEq, Default)]
    enum Cut {
        #[default]
        No,
        /// Nothing gets there.
        Before,
        /// It does its work, and nobody hears of it.
        Behind,
    }

    impl Shared {
        fn ask<T>(&self, ask: impl FnOnce(&mut Ledger) -> T) -> Result<T, &'static str> {
            let (ledger, cut) = &mut *self.0.borrow_mut();
            if *cut == Cut::Before {
                return Err("nobody there");
            }
            let answer = ask(ledger);
            if *cut == Cut::No { Ok(answer) } else { Err("no answer") }
        }
    }

    impl Arbiter for Shared {
        type Error = &'static str;

        fn claim(&mut self, wanted: &Claim) -> Result<Decision, Self::Error> {
            let Ok(decision) = self.ask(|ledger| ledger.claim(wanted))?;
            Ok(decision)
        }

        fn newest(&mut self, vm: &str) -> Result<Option<Claim>, Self::Error> {
            self.ask(|ledger| Ledger::newest(ledger, vm).cloned())
        }

        fn standing(&mut self, vm: &str, generation: Generation) -> Result<Option<Claim>, Self::Error> {
            let Ok(claim) = self.ask(|ledger| ledger.standing(vm, generation))?;
            Ok(claim)
        }
    }

    struct Lab(Shared, Cut);

    impl Place for Lab {
        type Host = Shared;

        fn host(&mut self) -> Shared {
            self.0.clone()
        }

        fn set_reachable(&mut self, reachable: bool) {
            self.0.0.borrow_mut().1 = if reachable { Cut::No } else { self.1 };
        }
    }

    #[test]
    fn an_arbiter_in_memory_is_one_whether_claims_or_their_answers_are_lost() {
        for cut in [Cut::Before, Cut::Behind] {
            check(|| Lab(Shared::default(), cut));
        }
    }

    /// A store that keeps the last claim instead of the first.
    #[derive(Default)]
    struct Latest(Rc<RefCell<Ledger>>);

    impl Arbiter for Latest {
        type Error = ();

        fn claim(&mut self, wanted: &Claim) -> Result<Decision, ()> {
            let mut fresh = Ledger::default();
            let before = self.0.borrow().newest(&wanted.vm).cloned();
            if let Some(before) = before.filter(|before| before.generation != wanted.generation) {
                let _ = fresh.claim(&before);
            }
            let Ok(decision) = fresh.claim(wanted);
            *self.0.borrow_mut() = fresh;
            Ok(decision)
        }

        fn newest(&mut self, vm: &str) -> Result<Option<Claim>, ()> {
            Ok(self.0.borrow().newest(vm).cloned())
        }

        fn standing(&mut self, vm: &str, generation: Generation) -> Result<Option<Claim>, ()> {
            self.newest(vm).map(|newest| newest.filter(|claim| claim.generation == generation))
        }
    }

    impl Place for Latest {
        type Host = Self;

        fn host(&mut self) -> Self {
            Self(self.0.clone())
        }

        fn set_reachable(&mut self, _: bool) {}
    }

    #[test]
    #[should_panic(expected = "given once")]
    fn a_store_that_lets_the_last_one_win_is_found() {
        check(Latest::default);
    }
}
