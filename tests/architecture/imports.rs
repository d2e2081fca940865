//! Finds the files that each source file imports from. Every path in `use` declarations and in code is resolved to the
//! file that defines the name. Re-exports are followed, and are not imports themselves.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;

/// Maximum re-exports that are followed for one name.
const MAX_REEXPORTS: usize = 8;

/// The path of a module, from the crate's root.
type ModulePath = Vec<String>;

/// One source file.
#[derive(Default)]
struct Module {
    file: String,
    /// Names that the file defines.
    items: BTreeSet<String>,
    /// Modules that the file declares.
    children: BTreeSet<String>,
    /// Imported names, and the paths that they stand for.
    names: BTreeMap<String, ModulePath>,
    /// Modules of which all names are imported.
    globs: Vec<ModulePath>,
    /// Paths that the file uses; without re-exports.
    uses: BTreeSet<ModulePath>,
}

/// All source files of the crate.
pub(crate) struct Imports(BTreeMap<ModulePath, Module>);

impl Imports {
    /// Parses source files, given by path and text.
    pub(crate) fn parse(sources: &[(String, String)]) -> Self {
        let mut modules = BTreeMap::new();
        for (file, text) in sources {
            let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
            let mut module = Module { file: file.clone(), ..Module::default() };
            parsed.items.iter().for_each(|item| module.visit_item(item));
            modules.insert(module_path(file), module);
        }
        Self(modules)
    }

    /// The files that each file imports from.
    pub(crate) fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (path, module) in &self.0 {
            let targets = module.uses.iter().filter_map(|used| self.resolve(path, used, MAX_REEXPORTS));
            let others = targets.map(|target| target.file.as_str()).filter(|file| *file != module.file);
            edges.insert(&module.file, others.collect());
        }
        edges
    }

    /// The file that defines the name of a path as seen from a module; `None` if another crate defines it.
    fn resolve(&self, within: &[String], path: &[String], depth: usize) -> Option<&Module> {
        let depth = depth.checked_sub(1)?;
        let (mut at, rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (within.to_vec(), &path[1..]),
            "super" => {
                let above = path.iter().take_while(|name| *name == "super").count();
                (within.get(..within.len().checked_sub(above)?)?.to_vec(), &path[above..])
            }
            first => {
                let module = &self.0[within];
                if !module.children.contains(first) {
                    let named = module.names.get(first).filter(|named| named.first() != path.first())?;
                    let whole: Vec<String> = named.iter().chain(&path[1..]).cloned().collect();
                    return self.resolve(within, &whole, depth);
                }
                (within.to_vec(), path)
            }
        };
        for (index, name) in rest.iter().enumerate() {
            let module = &self.0[&at];
            if module.children.contains(name) {
                at.push(name.clone());
            } else if module.items.contains(name) {
                break;
            } else if let Some(named) = module.names.get(name) {
                let whole: Vec<String> = named.iter().chain(&rest[index + 1..]).cloned().collect();
                return self.resolve(&at, &whole, depth);
            } else {
                let mut globs = module.globs.iter().filter_map(|glob| self.resolve(&at, glob, depth));
                return globs.find(|module| module.items.contains(name)).or(Some(module));
            }
        }
        Some(&self.0[&at])
    }
}

/// `src/gateway/request/mod.rs` → `gateway`, `request`.
fn module_path(file: &str) -> ModulePath {
    let path = file.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').filter(|name| *name != "lib").map(str::to_owned).collect()
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

impl Module {
    fn import(&mut self, tree: &syn::UseTree, prefix: &[String], is_reexport: bool) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.import(&path.tree, &with(&path.ident), is_reexport),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, prefix, is_reexport));
            }
            syn::UseTree::Glob(_) => self.globs.push(prefix.to_vec()),
            syn::UseTree::Name(name) if name.ident == "self" => {
                self.names.insert(prefix.last().unwrap().clone(), prefix.to_vec());
            }
            syn::UseTree::Name(name) => self.bind(name.ident.to_string(), with(&name.ident), is_reexport),
            syn::UseTree::Rename(name) => self.bind(name.rename.to_string(), with(&name.ident), is_reexport),
        }
    }

    fn bind(&mut self, name: String, path: ModulePath, is_reexport: bool) {
        if !is_reexport {
            self.uses.insert(path.clone());
        }
        self.names.insert(name, path);
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (name, attributes) = match item {
            syn::Item::Const(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Enum(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Fn(item) => (Some(&item.sig.ident), &item.attrs),
            syn::Item::Static(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Struct(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Trait(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Type(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Impl(item) => (None, &item.attrs),
            syn::Item::Mod(item) => (None, &item.attrs),
            syn::Item::Use(item) => (None, &item.attrs),
            _ => return syn::visit::visit_item(self, item),
        };
        if is_test(attributes) {
            return;
        }
        self.items.extend(name.map(ToString::to_string));
        match item {
            // A part of the tests.
            syn::Item::Mod(module)
                if module.attrs.iter().any(|attribute| attribute.path().is_ident("path")) =>
            {
                self.items.insert(module.ident.to_string());
            }
            syn::Item::Mod(module) if module.content.is_none() => {
                self.children.insert(module.ident.to_string());
            }
            syn::Item::Use(item) => {
                let is_reexport = !matches!(item.vis, syn::Visibility::Inherited);
                self.import(&item.tree, &[], is_reexport);
            }
            _ => syn::visit::visit_item(self, item),
        }
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {} // `pub(in path)` imports nothing

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.uses.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }
}

/// Groups of files that import one another in a cycle.
pub(crate) fn circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let reachable = |from: &'a str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(edges[file].iter().filter(|next| seen.insert(**next)));
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|file| (*file, reachable(file))).collect();
    let circle = |file: &&'a str| -> BTreeSet<&'a str> {
        reached[file].iter().filter(|other| reached[*other].contains(file)).copied().collect()
    };
    let all: BTreeSet<BTreeSet<&str>> = edges.keys().map(circle).filter(|circle| circle.len() > 1).collect();
    all.into_iter().collect()
}
