//! The check of starts and ends that every change goes through: all states of all deployments.

use pollux_sim::model::start::{CONFIGS, REACHED, check};

#[test]
fn no_order_of_steps_and_faults_breaks_a_rule_of_the_start_or_the_end() {
    let mut missed = REACHED.to_vec();
    for config in &CONFIGS {
        let outcome = check(config.start());
        assert!(outcome.broken.is_none(), "{}: {:#?}", config.name, outcome.broken);
        println!("{}: {} distinct states", config.name, outcome.states);
        missed.retain(|what| outcome.missed.contains(what));
    }
    assert!(missed.is_empty(), "faults must bite, but never: {missed:?}");
}
