//! Walks the syntax tree of one file and fills in what the rules know of it.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{
    Attribute, Block, Expr, FnArg, ImplItem, Item, Meta, Signature, Visibility,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use crate::{
    source::{self, Definition, File, Function, Impl, Module, Reference, Use},
    syntax::{
        attributes, cfgs, imported, is_bool, is_for_tests, is_hidden, is_public, line,
        public_fields, type_name, word,
    },
};

/// Reads `ast`, which is the parsed `text`, into `file`.
pub(crate) fn fill(file: &mut File, text: &str, ast: &syn::File) {
    let mut walker = Walker {
        lines: text.lines().collect(),
        scope: Vec::new(),
        cfg: Vec::new(),
        test: false,
        of: String::new(),
        depth: 0,
        blocks: vec![0],
        last_block: 0,
        file,
    };
    walker.visit_file(ast);
}

struct Walker<'a> {
    file: &'a mut File,
    lines: Vec<&'a str>,
    /// The modules inside the file that the walk is in.
    scope: Vec<String>,
    /// The `#[cfg]`s of these modules.
    cfg: Vec<String>,
    /// Inside an item that is compiled for tests only.
    test: bool,
    /// The type of the `impl`, or the trait, that the walk is in.
    of: String,
    /// How many functions the walk is in.
    depth: usize,
    /// The modules and blocks that the walk is in, by number.
    blocks: Vec<usize>,
    last_block: usize,
}

impl<'ast> Visit<'ast> for Walker<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = attributes(item);
        let before = self.enter(attributes, item.span());
        self.define(item, attributes);
        visit::visit_item(self, item);
        self.test = before;
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &Vec::new(),
        };
        let before = self.enter(attributes, item.span());
        visit::visit_impl_item(self, item);
        self.test = before;
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let mut cfg = self.cfg.clone();
        cfg.extend(cfgs(&module.attrs));
        self.file.modules.push(Module {
            scope: self.scope.clone(),
            name: word(&module.ident),
            test: self.test,
            cfg: cfg.clone(),
            public: is_public(&module.vis),
            hidden: is_hidden(&module.attrs),
        });
        self.scope.push(word(&module.ident));
        let outside = std::mem::replace(&mut self.cfg, cfg);
        self.enter_block();
        visit::visit_item_mod(self, module);
        self.blocks.pop();
        self.cfg = outside;
        self.scope.pop();
    }

    fn visit_block(&mut self, block: &'ast Block) {
        self.enter_block();
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut names = Vec::new();
        imported(&item.tree, &mut Vec::new(), &mut names);
        let attributes = item.attrs.iter().filter(|a| !a.path().is_ident("doc"));
        let attributes: String = attributes.map(|a| a.to_token_stream().to_string()).collect();
        self.file.uses.push(Use {
            block: *self.blocks.last().expect("the file is a block"),
            scope: self.scope.clone(),
            line: line(item.use_token.span),
            test: self.test,
            kind: format!("{attributes}{}", item.vis.to_token_stream()),
            public: is_public(&item.vis),
            exported: !matches!(item.vis, Visibility::Inherited),
            hidden: is_hidden(&item.attrs),
            names,
        });
        let span = item.span();
        self.file.use_lines.extend(line(span)..=span.end().line);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        if item.ident == "self" {
            self.file.crate_aliases.push(line(item.ident.span()));
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of = type_name(&item.self_ty);
        let is_trait = item.trait_.is_some();
        let members = item.items.iter().filter(|item| match item {
            ImplItem::Fn(item) => is_trait || is_public(&item.vis) && !is_hidden(&item.attrs),
            ImplItem::Const(item) => is_trait || is_public(&item.vis),
            _ => is_trait,
        });
        self.file.impls.push(Impl {
            of: of.clone(),
            is_trait,
            test: self.test,
            members: members.count(),
        });
        let outside = std::mem::replace(&mut self.of, of);
        visit::visit_item_impl(self, item);
        self.of = outside;
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let outside = std::mem::replace(&mut self.of, word(&item.ident));
        visit::visit_item_trait(self, item);
        self.of = outside;
    }

    fn visit_trait_item_type(&mut self, item: &'ast syn::TraitItemType) {
        // Each implementation gives it a value; here it gets its name.
        self.push_definition("type", &item.ident, item.span(), false);
        visit::visit_trait_item_type(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.attrs, &item.block, item.span());
        self.depth += 1;
        visit::visit_item_fn(self, item);
        self.depth -= 1;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.attrs, &item.block, item.span());
        self.depth += 1;
        visit::visit_impl_item_fn(self, item);
        self.depth -= 1;
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, &item.attrs, block, item.span());
        } else {
            // No body: it has parameters all the same.
            self.bodiless(&item.sig, item.span());
        }
        self.depth += 1;
        visit::visit_trait_item_fn(self, item);
        self.depth -= 1;
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // The path in `pub(in path)` imports nothing.
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.file.references.push(Reference {
                scope: self.scope.clone(),
                path: path.segments.iter().map(|s| word(&s.ident)).collect(),
                line: line(path.segments[0].ident.span()),
                test: self.test,
            });
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        // A link in the documentation is no import.
        if let (Meta::List(list), false) = (&attribute.meta, attribute.path().is_ident("doc")) {
            self.tokens(list.tokens.clone(), true);
        }
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if item.path.is_ident("proptest") {
            self.proptest(item.tokens.clone());
        }
        self.types_in_macro(item.tokens.clone());
        self.tokens(item.tokens.clone(), false);
        visit::visit_macro(self, item);
    }

    fn visit_expr_match(&mut self, item: &'ast syn::ExprMatch) {
        let at = line(item.match_token.span);
        if matches!(&*item.expr, Expr::Tuple(tuple) if tuple.elems.is_empty()) {
            self.file.matches.push((at, "()"));
        }
        if item.arms.iter().any(|arm| is_bool(&arm.pat)) {
            self.file.matches.push((at, "a bool"));
        }
        visit::visit_expr_match(self, item);
    }
}

impl Walker<'_> {
    /// Notes what an item's attributes say of tests; returns how it was outside.
    fn enter(&mut self, attributes: &[Attribute], span: Span) -> bool {
        let before = self.test;
        self.test |= attributes.iter().any(is_for_tests);
        if self.test && !before {
            self.file.test_lines.extend(span.start().line..=span.end().line);
        }
        before
    }

    fn enter_block(&mut self) {
        self.last_block += 1;
        self.blocks.push(self.last_block);
    }

    fn define(&mut self, item: &Item, attributes: &[Attribute]) {
        let (kind, name, visibility) = match item {
            Item::Const(item) => ("const", &item.ident, &item.vis),
            Item::Enum(item) => ("enum", &item.ident, &item.vis),
            Item::Fn(item) => ("fn", &item.sig.ident, &item.vis),
            Item::Static(item) => ("static", &item.ident, &item.vis),
            Item::Struct(item) => ("struct", &item.ident, &item.vis),
            Item::Trait(item) => ("trait", &item.ident, &item.vis),
            Item::Type(item) => ("type", &item.ident, &item.vis),
            Item::Union(item) => ("union", &item.ident, &item.vis),
            Item::Macro(syn::ItemMacro { ident: Some(name), .. }) => {
                ("macro", name, &Visibility::Inherited)
            }
            _ => return,
        };
        self.push_definition(kind, name, item.span(), self.depth == 0);
        let last = self.file.definitions.last_mut().expect("just pushed");
        last.cfg.extend(cfgs(attributes));
        last.public = is_public(visibility);
        last.hidden = is_hidden(attributes);
        (last.fields, last.members) = match item {
            Item::Struct(item) => (item.fields.len(), public_fields(&item.fields)),
            Item::Union(item) => (item.fields.named.len(), 0),
            Item::Enum(item) => {
                let fields = item.variants.iter().map(|variant| variant.fields.len());
                // Each variant, and each of its fields, is an item of the documentation.
                let members = fields.clone().sum::<usize>() + item.variants.len();
                (fields.max().unwrap_or(0), members)
            }
            Item::Trait(item) => (0, item.items.len()),
            _ => (0, 0),
        };
    }

    fn push_definition(&mut self, kind: &'static str, name: &Ident, span: Span, reachable: bool) {
        self.file.definitions.push(Definition {
            kind,
            scope: self.scope.clone(),
            name: word(name),
            line: line(name.span()),
            test: self.test,
            cfg: self.cfg.clone(),
            fields: 0,
            comment: self.comment(span, name.span()),
            reachable,
            public: false,
            hidden: false,
            members: 0,
        });
    }

    fn function(
        &mut self,
        signature: &Signature,
        attributes: &[Attribute],
        block: &Block,
        span: Span,
    ) {
        self.bodiless(signature, span);
        let last = self.file.functions.last_mut().expect("just pushed");
        last.lines = 1 + line(block.brace_token.span.close()) - last.line;
        last.is_test = attributes.iter().any(|a| a.path().is_ident("test"));
        last.test |= last.is_test;
    }

    fn bodiless(&mut self, signature: &Signature, span: Span) {
        let parameters = signature.inputs.iter();
        let at = line(signature.fn_token.span);
        self.file.functions.push(Function {
            name: match (self.depth, self.of.as_str()) {
                (0, of) if !of.is_empty() => format!("{of}::{}", word(&signature.ident)),
                _ => word(&signature.ident),
            },
            line: at,
            lines: 1 + signature.span().end().line - at,
            parameters: parameters.filter(|p| matches!(p, FnArg::Typed(_))).count(),
            test: self.test,
            is_test: false,
            comment: self.comment(span, signature.fn_token.span),
        });
    }

    /// The functions in `proptest! { #[test] fn name(...) { ... } }`, which are no syntax of Rust.
    fn proptest(&mut self, tokens: TokenStream) {
        let mut after_fn = false;
        for token in tokens {
            let TokenTree::Ident(word) = token else {
                continue;
            };
            if after_fn {
                self.file.functions.push(Function {
                    name: word.to_string(),
                    line: line(word.span()),
                    lines: 1,
                    parameters: 0,
                    test: true,
                    is_test: true,
                    comment: String::new(),
                });
            }
            after_fn = word == "fn";
        }
    }

    /// The types that a macro defines: `struct Name` among its tokens.
    fn types_in_macro(&mut self, tokens: TokenStream) {
        let mut kind = None;
        for token in tokens {
            match (kind, &token) {
                (Some(kind), TokenTree::Ident(name)) => {
                    self.push_definition(kind, name, name.span(), false);
                }
                (_, TokenTree::Group(group)) => self.types_in_macro(group.stream()),
                _ => {}
            }
            let mut kinds = ["enum", "struct", "trait", "union"].into_iter();
            kind = kinds.find(|kind| matches!(&token, TokenTree::Ident(word) if word == kind));
        }
    }

    /// The paths in tokens that the parser does not look into, and with `strings` in literals.
    fn tokens(&mut self, tokens: TokenStream, strings: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, mark: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == mark);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream(), strings),
                TokenTree::Ident(first) => {
                    let inside =
                        at > 0 && (is(at - 1, '.') || is(at - 1, ':') && at > 1 && is(at - 2, ':'));
                    let mut path = vec![word(first)];
                    while is(at + 1, ':') && is(at + 2, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else {
                            break;
                        };
                        path.push(word(next));
                        at += 3;
                    }
                    if path.len() > 1 && !inside {
                        self.file.references.push(Reference {
                            scope: self.scope.clone(),
                            path,
                            line: line(first.span()),
                            test: self.test,
                        });
                    }
                }
                TokenTree::Punct(_) => {}
                TokenTree::Literal(_) if !strings => {}
                TokenTree::Literal(literal) => {
                    self.literal(&literal.to_string(), line(literal.span()))
                }
            }
            at += 1;
        }
    }

    /// Serde takes paths in strings: `#[serde(with = "crate::units::bytes")]`.
    fn literal(&mut self, literal: &str, line: usize) {
        let Some(inner) = literal.strip_prefix('"').and_then(|l| l.strip_suffix('"')) else {
            return;
        };
        let path: Vec<String> = inner.split("::").map(str::to_owned).collect();
        let is_word = |part: &String| {
            !part.is_empty() && part.chars().all(|c| c == '_' || c.is_alphanumeric())
        };
        if path.len() > 1 && path.iter().all(is_word) {
            self.file.references.push(Reference {
                scope: self.scope.clone(),
                path,
                line,
                test: self.test,
            });
        }
    }

    /// The comment directly above an item, and those between its attributes.
    fn comment(&self, item: Span, name: Span) -> String {
        let first = item.start().line - 1;
        let above = self.lines[..first].iter().rev();
        let above = above.take_while(|line| source::is_comment(line)).count();
        let lines = &self.lines[first - above..line(name) - 1];
        source::comment(lines.iter().copied().filter(|line| source::is_comment(line)))
    }
}
