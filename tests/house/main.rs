//! Holds the house: floors, circles, sizes, names, packages and the budget, by reading the source.

mod api;
mod budget;
mod circles;
mod floors;
mod imports;
mod known;
mod names;
mod packages;
mod sizes;
mod source;
mod syntax;
mod tree;
mod visit;
