//! A Rust file, parsed: what most rules look at.

use super::Problems;
use super::tree::Tree;
use proc_macro2::{TokenStream, TokenTree};

/// One file of Rust.
pub(crate) struct Source {
    /// Its path, relative to the root.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Its items.
    pub(crate) file: syn::File,
    /// Its tokens; doc comments are `doc` attributes.
    pub(crate) tokens: TokenStream,
}

impl Source {
    /// Parses all Rust files of the tree; those that do not parse are problems.
    pub(crate) fn parse_all(tree: &Tree, problems: &mut Problems) -> Vec<Self> {
        let rust = tree.texts().filter(|(path, _)| path.ends_with(".rs"));
        rust.filter_map(|(path, text)| match Self::parse(path, text) {
            Ok(source) => Some(source),
            Err(error) => {
                let line = error.span().start().line;
                problems.push(format!("{path}:{line}: does not parse: {error}"));
                None
            }
        })
        .collect()
    }

    /// Parses one file.
    pub(crate) fn parse(path: &str, text: &str) -> syn::Result<Self> {
        let tokens: TokenStream = text.parse().map_err(syn::Error::from)?;
        Ok(Self { path: path.into(), text: text.into(), file: syn::parse2(tokens.clone())?, tokens })
    }
}

/// Calls `visit` with every token, groups first by their delimiters, then by what is in them.
pub(crate) fn each_token(tokens: &TokenStream, visit: &mut impl FnMut(&TokenTree)) {
    for token in tokens.clone() {
        visit(&token);
        if let TokenTree::Group(group) = &token {
            each_token(&group.stream(), visit);
        }
    }
}
