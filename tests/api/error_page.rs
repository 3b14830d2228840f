//! `docs/errors.md`, the page of errors for people who integrate the API.

use std::collections::BTreeSet;

use loyalty_codes::{
    api::error::{ApiMessage, Problem},
    model::customer::UserId,
};

const PAGE: &str = include_str!("../../docs/errors.md");

/// An entry of the page, `**message** (kind). cause *What to do:* remedy` below `## code`.
struct Entry {
    /// Code, message and kind, which is the HTTP status or that it is a warning.
    error: (u16, String, String),
    cause: String,
    remedy: String,
}

/// Every paragraph below a code. Panics at one that has another form.
fn entries() -> Vec<Entry> {
    let sections = PAGE.split("\n## ").skip(1).map(|section| section.split_once("\n\n").unwrap());
    let paragraphs = sections.flat_map(|(code, text)| text.split("\n\n").map(move |entry| (code, entry)));
    let read = |(code, text): (&str, &str)| {
        let text = text.trim().replace('\n', " ");
        let (message, rest) = text.strip_prefix("**")?.split_once("** (")?;
        let (kind, rest) = rest.split_once("). ")?;
        let (cause, remedy) = rest.split_once(" *What to do:* ")?;
        let error = (code.parse().ok()?, message.to_owned(), kind.to_owned());
        Some(Entry { error, cause: cause.to_owned(), remedy: remedy.to_owned() })
    };
    paragraphs.map(|paragraph| read(paragraph).unwrap_or_else(|| panic!("{paragraph:?}"))).collect()
}

#[test]
fn the_error_page_has_every_error_and_warning_of_the_code_and_no_other() {
    let warnings = [
        ApiMessage::ACCOUNT_DEFAULTED,
        ApiMessage::IDENTIFIER_UNCHANGED,
        ApiMessage::joined(UserId(313_302_314)),
    ];
    let warnings = warnings
        .map(|warning| (warning.code(), warning.message().to_owned(), "a warning in a success".to_owned()));
    let errors = Problem::ALL.iter().map(|problem| {
        assert!(problem.status().is_client_error() || problem.status().is_server_error(), "{problem:?}");
        (problem.code(), problem.message().to_owned(), format!("HTTP {}", problem.status().as_u16()))
    });
    let expected: BTreeSet<_> = errors.chain(warnings).collect();
    let entries: Vec<_> = entries().into_iter().map(|entry| entry.error).collect();
    let on_the_page: BTreeSet<_> = entries.iter().cloned().collect();
    assert_eq!(on_the_page.len(), entries.len(), "an entry stands twice");
    let missing: Vec<_> = expected.difference(&on_the_page).collect();
    let unknown: Vec<_> = on_the_page.difference(&expected).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:#?}\nunknown: {unknown:#?}");
    assert!(entries.is_sorted_by_key(|(code, ..)| *code));
}

#[test]
fn every_error_is_explained_in_sentences_of_its_own() {
    let mut explained = BTreeSet::new();
    for Entry { error, cause, remedy } in entries() {
        for text in [&cause, &remedy] {
            assert!(text.len() >= 10 && text.ends_with('.'), "{error:?}: {text}");
        }
        assert!(explained.insert((cause, remedy)), "{error:?} is explained like another");
    }
}
