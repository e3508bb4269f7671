//! The tree of modules, and the file in which a path ends.

use std::collections::BTreeMap;

use crate::source::File;

/// A re-export of a re-export is followed this often; more is a circle of re-exports.
const STEPS: usize = 16;

/// The modules of a crate, by path from its root.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    files: &'a [File],
    modules: BTreeMap<Vec<String>, usize>,
}

/// Where a path ends: in a module itself, or at an item of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Module(usize),
    Item(usize),
}

impl Target {
    pub(crate) fn file(self) -> usize {
        match self {
            Self::Module(file) | Self::Item(file) => file,
        }
    }
}

impl<'a> Tree<'a> {
    pub(crate) fn new(files: &'a [File]) -> Self {
        let mut modules = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            modules.insert(file.module(), number);
        }
        for (number, file) in files.iter().enumerate() {
            for module in &file.modules {
                let path = [file.module(), module.scope.clone(), vec![module.name.clone()]];
                modules.entry(path.concat()).or_insert(number);
            }
        }
        Self { files, modules }
    }

    /// The path from the crate's root, if what stands at `scope` in `file` names it by `crate`,
    /// `self`, `super` or a module declared right there. What is imported is not followed.
    pub(crate) fn absolute(
        &self,
        file: &File,
        scope: &[String],
        path: &[String],
    ) -> Option<Vec<String>> {
        let mut place = [file.module(), scope.to_vec()].concat();
        let first = path.first()?;
        let supers = path.iter().take_while(|word| *word == "super").count();
        let rest = match first.as_str() {
            "crate" => {
                place.clear();
                &path[1..]
            }
            "self" => &path[1..],
            "super" => {
                place.truncate(place.len().checked_sub(supers)?);
                &path[supers..]
            }
            _ => {
                let mut child = place.clone();
                child.push(first.clone());
                self.modules.get(&child)?;
                path
            }
        };
        place.extend_from_slice(rest);
        Some(place)
    }

    /// The file that a path from the root leads to; `use` statements on its way are followed.
    pub(crate) fn resolve(&self, path: &[String]) -> Target {
        self.step(path, STEPS)
    }

    fn step(&self, path: &[String], steps: usize) -> Target {
        let mut known = 0;
        while known < path.len() && self.modules.contains_key(&path[..=known]) {
            known += 1;
        }
        // A module and a function may have one name; then the last word means the function.
        if known == path.len() && known > 0 {
            let module = &path[..known - 1];
            if let Some(target) = self.item(module, &path[known - 1], &[], steps)
                && matches!(target, Target::Item(_))
            {
                return target;
            }
        }
        let here = self.modules.get(&path[..known]).copied().unwrap_or(0);
        if known == path.len() {
            return Target::Module(here);
        }
        self.item(&path[..known], &path[known], &path[known + 1..], steps)
            .unwrap_or(Target::Item(here))
    }

    /// The item `name` of a module, or what is behind it when `rest` follows.
    fn item(&self, module: &[String], name: &str, rest: &[String], steps: usize) -> Option<Target> {
        let number = *self.modules.get(module)?;
        let file = &self.files[number];
        let scope = module.strip_prefix(&file.module()[..]).unwrap_or_default();
        let defined =
            file.definitions.iter().any(|d| d.reachable && d.scope == scope && d.name == name);
        if defined {
            return Some(Target::Item(number));
        }
        let steps = steps.checked_sub(1)?;
        let uses = file.uses.iter().filter(|item| item.scope == scope);
        let names = uses.flat_map(|item| &item.names);
        let mut named = names.clone().filter(|import| import.name.as_deref() == Some(name));
        if let Some(path) = named.find_map(|n| self.absolute(file, scope, &n.path)) {
            return Some(self.step(&[&path[..], rest].concat(), steps));
        }
        for glob in names.filter(|n| n.glob) {
            let Some(path) = self.absolute(file, scope, &glob.path) else {
                continue;
            };
            if let Some(found) = self.item(&path, name, rest, steps) {
                return Some(found);
            }
        }
        None
    }
}
