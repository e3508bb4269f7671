//! Small questions to the syntax tree.

use proc_macro2::{Ident, Span, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Fields, Item, Meta, Pat, Type, UseTree, Visibility};

use crate::source::Imported;

/// The line that a span begins in.
pub(crate) fn line(span: Span) -> usize {
    span.start().line
}

/// The identifier without the mark of a raw one.
pub(crate) fn word(ident: &Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

/// The names that a `use` tree brings in.
pub(crate) fn imported(tree: &UseTree, path: &mut Vec<String>, names: &mut Vec<Imported>) {
    let mut push = |mut path: Vec<String>, last: Option<&Ident>, name: Option<String>, span| {
        let itself = last.is_some_and(|last| last == "self") && !path.is_empty();
        path.extend(last.filter(|_| !itself).map(word));
        names.push(Imported {
            name: match &name {
                Some(name) if name == "_" => None,
                Some(name) if name == "self" => path.last().cloned(),
                _ => name,
            },
            glob: last.is_none(),
            line: line(span),
            path,
        });
    };
    match tree {
        UseTree::Path(part) => {
            path.push(word(&part.ident));
            imported(&part.tree, path, names);
            path.pop();
        }
        UseTree::Name(name) => {
            push(path.clone(), Some(&name.ident), Some(word(&name.ident)), name.ident.span())
        }
        UseTree::Rename(name) => {
            push(path.clone(), Some(&name.ident), Some(word(&name.rename)), name.ident.span())
        }
        UseTree::Glob(glob) => push(path.clone(), None, None, glob.star_token.span),
        UseTree::Group(group) => {
            for tree in &group.items {
                imported(tree, path, names);
            }
        }
    }
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// What stands in the parentheses of each `#[cfg(...)]`.
pub(crate) fn cfgs(attributes: &[Attribute]) -> impl Iterator<Item = String> {
    attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => Some(list.tokens.to_string()),
        _ => None,
    })
}

/// `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
pub(crate) fn is_for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return attribute.path().is_ident("test");
    };
    let is_test = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word == "test");
    let mut inside = list.tokens.clone().into_iter();
    let first = inside.next();
    list.path.is_ident("cfg")
        && match (&first, inside.next()) {
            (Some(first), None) => is_test(first),
            (Some(TokenTree::Ident(all)), Some(TokenTree::Group(group))) if all == "all" => {
                group.stream().into_iter().any(|token| is_test(&token))
            }
            _ => false,
        }
}

/// `#[doc(hidden)]`.
pub(crate) fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else {
            return false;
        };
        list.path.is_ident("doc") && list.tokens.to_string() == "hidden"
    })
}

/// `pub` without a limit.
pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// How many fields are public.
pub(crate) fn public_fields(fields: &Fields) -> usize {
    fields.iter().filter(|field| is_public(&field.vis)).count()
}

/// The last word of a type's path: `Gate` of `crate::server::gate::Gate<T>`.
pub(crate) fn type_name(of: &Type) -> String {
    match of {
        Type::Path(path) => path.path.segments.last().map(|last| word(&last.ident)),
        Type::Reference(inner) => Some(type_name(&inner.elem)),
        _ => None,
    }
    .unwrap_or_else(|| of.to_token_stream().to_string())
}

/// Whether the pattern is `true` or `false`, alone or among others.
pub(crate) fn is_bool(pattern: &Pat) -> bool {
    match pattern {
        Pat::Lit(literal) => matches!(literal.lit, syn::Lit::Bool(_)),
        Pat::Or(either) => either.cases.iter().any(is_bool),
        Pat::Paren(inner) => is_bool(&inner.pat),
        _ => false,
    }
}
