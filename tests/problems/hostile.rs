//! Files that nobody wrote: whatever the bytes, the answer is a pipeline or problems, and each problem can be drawn.

use proptest::prelude::*;

use crate::check;

const ORDERS: &str = include_str!("orders.yaml");

fn survives(bytes: Vec<u8>) {
    match check(bytes) {
        Ok(loaded) => drop(loaded.pipeline.definition()),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            assert!(!problems.render(false).is_empty());
            drop(problems.to_json());
        }
    }
}

/// A part of a file, from what pipelines are made of.
fn scrap() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("{{ ".to_owned()),
        Just(" }}".to_owned()),
        Just("{{".to_owned()),
        Just("*a".to_owned()),
        Just("&a ".to_owned()),
        Just("\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("\t".to_owned()),
        Just(": ".to_owned()),
        Just("- ".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("|\n".to_owned()),
        Just(">-\n".to_owned()),
        Just("#".to_owned()),
        Just("---\n".to_owned()),
        Just("steps:".to_owned()),
        Just("needs: [go]".to_owned()),
        Just("!!str ".to_owned()),
        Just("? ".to_owned()),
        Just("steps.go.outputs.x".to_owned()),
        Just("é✓".to_owned()),
        Just("\r\n".to_owned()),
        Just("\u{FEFF}".to_owned()),
        Just("<<: *a".to_owned()),
        Just("uses: ./pipeline.yaml".to_owned()),
        Just("pivot: true".to_owned()),
        ".{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives(bytes);
    }

    #[test]
    fn any_scraps_give_an_answer(scraps in proptest::collection::vec(scrap(), 0..40)) {
        survives(scraps.concat().into_bytes());
    }

    #[test]
    fn a_spoiled_pipeline_gives_an_answer(spoils in proptest::collection::vec((0..ORDERS.len(), 0..30_usize, scrap()), 1..6)) {
        let mut text: Vec<char> = ORDERS.chars().collect();
        for (at, gone, put) in spoils {
            let at = at.min(text.len());
            let end = (at + gone).min(text.len());
            text.splice(at..end, put.chars());
        }
        survives(text.into_iter().collect::<String>().into_bytes());
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for text in ["[".repeat(200_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "? ".repeat(50_000), "a: \n ".repeat(1000)] {
        survives(text.into_bytes());
    }
}

#[test]
fn a_chain_of_ten_thousand_steps_is_no_deep_recursion() {
    let steps: String =
        (1..10_000).map(|n| format!("  - {{ id: s{n}, uses: command, needs: [s{}], with: {{ run: x }} }}\n", n - 1)).collect();
    survives(format!("steps:\n  - {{ id: s0, uses: command, needs: [s9999], with: {{ run: x }} }}\n{steps}").into_bytes());
}
