//! The page of errors for people who integrate the API.

use std::{collections::BTreeSet, fs, path::Path};

use loyalty_codes::api::{error::Problem, error_help};

/// Compares `docs/errors.md` with the code. With `UPDATE_DOCS=1`, writes the page.
#[test]
fn the_error_page_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, error_help::page()).unwrap();
    } else {
        let page = fs::read_to_string(&path).unwrap();
        assert!(page == error_help::page(), "docs/errors.md is out of date: run `make error-page`");
    }
}

#[test]
fn every_error_is_explained_in_sentences_of_its_own() {
    let page = error_help::page().replace('\n', " ");
    let mut explained = BTreeSet::new();
    for problem in Problem::ALL {
        let help = error_help::of(*problem);
        for text in [help.cause, help.remedy] {
            assert!(text.len() >= 10 && text.ends_with('.'), "{problem:?}: {text}");
        }
        let entry = format!("**{}** (HTTP {})", problem.message(), problem.status().as_u16());
        assert!(page.contains(&entry), "{entry}");
        assert!(explained.insert((help.cause, help.remedy)), "{problem:?} is explained like another problem");
    }
}
