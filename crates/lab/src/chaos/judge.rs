//! Whether one machine that never died could have said what the clients heard.
//!
//! Linearizability is the simulator's checker (`pollux_sim::is_linearizable`), one object at a time; keys that are written once
//! and the list's content are compared as they are.

use super::clients::{Object, ReadBack, Seen, TOKEN_BYTES};
use pollux_sim::{Operation, is_linearizable};
use std::collections::BTreeMap;

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Judgement {
    /// Answers that were checked.
    pub checked: u64,
    /// Acknowledged writes that are gone.
    pub lost: u64,
    /// Objects whose answers no order explains, and tokens of the list in a wrong place.
    pub contradicted: u64,
    /// Objects whose search was given up.
    pub undecided: u64,
    /// In words.
    pub faults: Vec<String>,
}

/// Judges a round.
pub fn judge(seen: &[Seen], back: &ReadBack) -> Judgement {
    let mut judgement = Judgement { lost: back.lost, ..Judgement::default() };
    judgement.checked = back.replies + seen.iter().map(|client| client.times.len() as u64).sum::<u64>();
    if back.lost > 0 {
        judgement.faults.push(format!("{} acknowledged keys are lost or wrong", back.lost));
    }
    let mut objects = BTreeMap::<Object, Vec<Operation>>::new();
    for (object, operation) in seen.iter().flat_map(|client| &client.operations) {
        objects.entry(*object).or_default().push(*operation);
    }
    for (object, operations) in objects {
        match is_linearizable(&operations) {
            Some(true) => {}
            None => judgement.undecided += 1,
            Some(false) => {
                judgement.contradicted += 1;
                let count = operations.len();
                judgement
                    .faults
                    .push(format!("{object:?}: no order of its {count} operations explains the answers"));
            }
        }
    }
    judge_list(seen, &back.list, &mut judgement);
    judgement
}

/// Every acknowledged token is where its answer said.
fn judge_list(seen: &[Seen], list: &str, judgement: &mut Judgement) {
    for (token, length) in seen.iter().flat_map(|client| &client.tokens) {
        let end = *length as usize * TOKEN_BYTES;
        let found = end.checked_sub(TOKEN_BYTES).and_then(|start| list.get(start..end));
        if found == Some(token) {
            continue;
        }
        if list.contains(token.as_str()) {
            judgement.contradicted += 1;
            judgement.faults.push(format!("token {token} of the list is not at {length}, as was said"));
        } else {
            judgement.lost += 1;
            judgement.faults.push(format!("token {token} was acknowledged and is not in the list"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_sim::Effect;

    fn did(object: Object, effect: Effect, at: u64, answer: u64) -> (Object, Operation) {
        (object, Operation { effect, invoked_ns: at, returned: Some((at + 5, answer)) })
    }

    fn seen(operations: Vec<(Object, Operation)>, tokens: &[(&str, u64)]) -> Seen {
        let tokens = tokens.iter().map(|(token, length)| ((*token).to_owned(), *length)).collect();
        Seen { operations, tokens, ..Seen::default() }
    }

    fn back(list: &str) -> ReadBack {
        ReadBack { lost: 0, replies: 0, list: list.into() }
    }

    #[test]
    fn a_right_history_is_right() {
        let a = seen(
            vec![did(Object::Counter, Effect::Add, 0, 1), did(Object::Register(1), Effect::Write(7), 10, 0)],
            &[("00000000", 1)],
        );
        let b = seen(
            vec![did(Object::Counter, Effect::Read, 20, 1), did(Object::Register(1), Effect::Read, 30, 7)],
            &[("10000000", 2)],
        );
        let judgement = judge(&[a, b], &back("0000000010000000"));
        assert_eq!((judgement.faults.len(), judgement.undecided), (0, 0), "{judgement:?}");
    }

    #[test]
    fn what_a_machine_that_was_set_back_says_is_a_contradiction() {
        let old = vec![did(Object::Counter, Effect::Add, 0, 1), did(Object::Counter, Effect::Add, 10, 1)];
        assert_eq!(judge(&[seen(old, &[])], &back("")).contradicted, 1);
        let gone = vec![
            did(Object::Register(0), Effect::Write(3), 0, 0),
            did(Object::Register(0), Effect::Read, 10, 0),
        ];
        assert_eq!(judge(&[seen(gone, &[])], &back("")).contradicted, 1);
    }

    #[test]
    fn a_token_that_is_gone_is_lost_and_one_that_moved_contradicts() {
        let tokens = [("00000000", 1), ("00000001", 2)];
        let judgement = judge(&[seen(vec![], &tokens)], &back("00000001"));
        assert_eq!((judgement.lost, judgement.contradicted), (1, 1), "{judgement:?}");
        assert_eq!(judge(&[seen(vec![], &tokens)], &back("0000000000000001")), Judgement::default());
    }

    #[test]
    fn a_key_that_is_gone_is_lost() {
        let back = ReadBack { lost: 2, replies: 9, list: String::new() };
        let judgement = judge(&[], &back);
        assert_eq!((judgement.lost, judgement.checked, judgement.faults.len()), (2, 9, 1));
    }
}
