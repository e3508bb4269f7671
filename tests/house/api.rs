//! What the documentation shows a user of the library: near what `cargo public-api -sss` lists,
//! without a nightly compiler. It counts modules, types, their public fields, variants and
//! functions, and the traits that are implemented for them by hand.

use std::collections::BTreeSet;

use crate::{
    source::{Definition, File},
    tree::{Target, Tree},
};

/// The items that can be reached from `lib.rs` and are not hidden.
pub(crate) fn items(files: &[File]) -> BTreeSet<String> {
    let mut walk =
        Walk { tree: Tree::new(files), files, seen: BTreeSet::new(), items: BTreeSet::new() };
    walk.module(&[]);
    walk.items
}

struct Walk<'a> {
    tree: Tree<'a>,
    files: &'a [File],
    seen: BTreeSet<Vec<String>>,
    items: BTreeSet<String>,
}

impl Walk<'_> {
    fn module(&mut self, path: &[String]) {
        if !self.seen.insert(path.to_vec()) {
            return;
        }
        self.items.insert(format!("mod crate::{}", path.join("::")));
        let file = &self.files[self.tree.resolve(path).file()];
        let Some(scope) = path.strip_prefix(&file.module()[..]) else {
            return;
        };
        for module in &file.modules {
            if module.public && !module.hidden && !module.test && module.scope == scope {
                self.module(&[path, std::slice::from_ref(&module.name)].concat());
            }
        }
        for definition in file.definitions.iter().filter(|d| d.scope == scope) {
            if definition.public && definition.reachable {
                self.definition(file, definition);
            }
        }
        for item in &file.uses {
            if !item.public || item.hidden || item.test || item.scope != scope {
                continue;
            }
            for import in &item.names {
                if let Some(path) = self.tree.absolute(file, scope, &import.path) {
                    self.shown(&path);
                }
            }
        }
    }

    /// What a `pub use` shows.
    fn shown(&mut self, path: &[String]) {
        match self.tree.resolve(path) {
            Target::Module(_) => self.module(path),
            Target::Item(file) => {
                let file = &self.files[file];
                let is_it = |d: &&Definition| d.reachable && Some(&d.name) == path.last();
                for definition in file.definitions.iter().filter(is_it) {
                    self.definition(file, definition);
                }
            }
        }
    }

    fn definition(&mut self, home: &File, definition: &Definition) {
        let name = &definition.name;
        if definition.hidden
            || definition.test
            || !self.items.insert(format!("{} {name}", home.path))
        {
            return;
        }
        let mut members = vec![("member".to_owned(), definition.members)];
        for file in self.files.iter().filter(|file| self.sees(file, home, name)) {
            let impls = file.impls.iter().filter(|i| i.of == *name && !i.test);
            for (number, item) in impls.enumerate() {
                // The documentation shows the `impl` itself too, if there is anything in it.
                let itself = usize::from(item.is_trait || item.members > 0);
                members.push((format!("{} impl {number}", file.path), item.members + itself));
            }
        }
        for (of, count) in members {
            let items = (0..count).map(|number| format!("{} {name} {of} {number}", home.path));
            self.items.extend(items);
        }
    }

    /// Whether `name` means the type of the file `home` in `file`.
    fn sees(&self, file: &File, home: &File, name: &str) -> bool {
        let has = |file: &File| file.definitions.iter().any(|d| d.name == name && !d.test);
        if file.path == home.path || has(file) {
            return file.path == home.path;
        }
        let names = file.uses.iter().flat_map(|item| item.names.iter().map(move |n| (item, n)));
        let mut names = names.filter(|(_, n)| n.glob || n.name.as_deref() == Some(name));
        names.any(|(item, import)| {
            let path = self.tree.absolute(file, &item.scope, &import.path);
            let glob = import.glob.then(|| name.to_owned());
            let path = path.map(|path| path.into_iter().chain(glob).collect::<Vec<_>>());
            path.is_some_and(|path| self.files[self.tree.resolve(&path).file()].path == home.path)
        })
    }
}

#[test]
fn planted_items_are_counted() {
    let parse = |(path, text)| File::parse(path, text).expect("Rust");
    let files = [
        ("src/lib.rs", "mod a; pub mod b; #[doc(hidden)] pub mod c; pub use a::{E, S}; fn f() {}"),
        (
            "src/a.rs",
            "pub struct S { pub x: u8, y: u8 } \
             impl S { pub fn g(&self) {} #[doc(hidden)] pub fn i() {} fn h() {} } \
             impl Drop for S { fn drop(&mut self) {} } pub enum E { A, B(u8) } pub struct No;",
        ),
        ("src/b.rs", "pub fn f() {} #[doc(hidden)] pub fn g() {} pub(crate) fn h() {}"),
        ("src/c.rs", "pub fn f() {}"),
    ];
    let items = items(&files.map(parse));
    // The crate, `b`, `b::f`; `S`, `x`, an impl and `g`, an impl and `drop`; `E`, `A`, `B`, `B.0`.
    assert_eq!(items.len(), 3 + 6 + 4, "{items:#?}");
}
