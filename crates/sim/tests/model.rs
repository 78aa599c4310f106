//! The model check that every change goes through: the quick deployments, all of their states. The others, and the
//! mutants that prove that the check bites, are commands of their own (docs/reliability.md).

use pollux_sim::model::{CONFIGS, REACHED, check};

#[test]
fn no_order_of_steps_and_faults_breaks_a_rule_within_the_quick_bounds() {
    let mut missed = REACHED.to_vec();
    for config in CONFIGS.iter().filter(|config| config.quick) {
        let outcome = check(config.start(), 2, None);
        assert!(outcome.counterexample.is_none(), "{}: {:#?}", config.name, outcome.counterexample);
        assert!(outcome.complete);
        println!("{}: {} distinct states", config.name, outcome.states);
        missed.retain(|what| outcome.missed.contains(what));
    }
    assert!(missed.is_empty(), "faults must bite, but never: {missed:?}");
}
