//! Crates as syntax: their modules, and which file names an item of which other file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, Ident, Meta, UseTree, Visibility,
    visit::{self, Visit},
};

const MAX_RENAMES: usize = 16;

pub(crate) struct Root {
    pub(crate) crate_name: String,
    /// Whether other crates can name its items.
    pub(crate) is_lib: bool,
    /// `lib.rs` or `main.rs`, from the workspace on.
    pub(crate) file: PathBuf,
}

/// A module. Inline modules have their own names and the file of their parent.
#[derive(Default)]
pub(crate) struct Module {
    pub(crate) crate_name: String,
    /// From the crate's root on; empty for the root itself. A program beside a library is named like its file.
    pub(crate) path: Vec<String>,
    pub(crate) file: PathBuf,
    /// The module of that file: itself, unless it is inline.
    pub(crate) of_file: usize,
    pub(crate) parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// What `use` names, as written, and whether for this module only.
    names: BTreeMap<String, (Vec<String>, Kind)>,
    mentions: Vec<Mention>,
}

struct Mention {
    path: Vec<String>,
    line: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Import,
    Reexport,
    Code,
}

/// A use of an item of another module.
pub(crate) struct Use {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) line: usize,
    pub(crate) path: String,
}

/// A use of an item of no crate of the workspace.
pub(crate) struct Foreign {
    pub(crate) from: usize,
    pub(crate) line: usize,
    /// The path with all renames undone.
    pub(crate) path: Vec<String>,
}

enum Target {
    Module,
    Item(usize),
    Foreign(Vec<String>),
}

#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) modules: Vec<Module>,
    pub(crate) uses: Vec<Use>,
    pub(crate) foreign: Vec<Foreign>,
    libs: BTreeMap<String, usize>,
}

impl Tree {
    /// Reads the crates of `roots` with `text`, which has a file's content if there is that file.
    pub(crate) fn read(roots: &[Root], text: &dyn Fn(&Path) -> Option<String>) -> Result<Self> {
        let mut tree = Self::default();
        for root in roots {
            let has_lib = |other: &Root| other.is_lib && other.crate_name == root.crate_name;
            let path = if root.is_lib || !roots.iter().any(has_lib) {
                Vec::new()
            } else {
                let stem = root.file.file_stem().unwrap_or_default();
                vec![stem.to_string_lossy().into_owned()]
            };
            let module = tree.add(&root.crate_name, path, &root.file, None);
            if root.is_lib {
                let name = root.crate_name.replace('-', "_");
                tree.libs.insert(name, module);
            }
            let directory = root.file.parent().unwrap_or(Path::new("")).to_owned();
            tree.read_file(module, &directory, text)?;
        }
        tree.resolve_all();
        Ok(tree)
    }

    pub(crate) fn name(&self, module: usize) -> String {
        let module = &self.modules[module];
        std::iter::once(&module.crate_name)
            .chain(&module.path)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("::")
    }

    pub(crate) fn place(&self, module: usize, line: usize) -> String {
        format!("{}:{line}", self.modules[module].file.display())
    }

    fn add(
        &mut self,
        crate_name: &str,
        path: Vec<String>,
        file: &Path,
        parent: Option<usize>,
    ) -> usize {
        let index = self.modules.len();
        let of_parent = parent.map(|parent| self.modules[parent].of_file);
        let inline_in = of_parent.filter(|of_file| self.modules[*of_file].file == file);
        if let (Some(parent), Some(name)) = (parent, path.last()) {
            self.modules[parent].children.insert(name.clone(), index);
        }
        self.modules.push(Module {
            crate_name: crate_name.to_owned(),
            path,
            file: file.to_owned(),
            of_file: inline_in.unwrap_or(index),
            parent,
            ..Module::default()
        });
        index
    }

    fn add_child(&mut self, parent: usize, name: &str, file: &Path) -> usize {
        let Module {
            crate_name, path, ..
        } = &self.modules[parent];
        let (crate_name, path) = (
            crate_name.clone(),
            [path.as_slice(), &[name.to_owned()]].concat(),
        );
        self.add(&crate_name, path, file, Some(parent))
    }

    /// `directory` is where the files of the module's children are.
    fn read_file(
        &mut self,
        module: usize,
        directory: &Path,
        text: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<()> {
        let file = self.modules[module].file.clone();
        let content = text(&file).with_context(|| format!("{}: no such file", file.display()))?;
        let syntax = syn::parse_file(&content).with_context(|| file.display().to_string())?;
        let mut reader = Reader {
            tree: self,
            module,
            directory: directory.to_owned(),
            found: Vec::new(),
        };
        reader.visit_file(&syntax);
        for (name, parent, directory) in reader.found {
            let flat = directory.join(format!("{name}.rs"));
            let file = match text(&flat) {
                Some(_) => flat,
                None => directory.join(&name).join("mod.rs"),
            };
            let child = self.add_child(parent, &name, &file);
            self.read_file(child, &directory.join(&name), text)?;
        }
        Ok(())
    }

    fn resolve_all(&mut self) {
        let (mut uses, mut foreign) = (Vec::new(), Vec::new());
        for (index, module) in self.modules.iter().enumerate() {
            let from = module.of_file;
            for Mention { path, line, kind } in &module.mentions {
                if *kind == Kind::Code && self.is_imported(index, path) {
                    continue;
                }
                let line = *line;
                match self.resolve(index, path, MAX_RENAMES) {
                    Target::Module => {}
                    Target::Foreign(path) => foreign.push(Foreign { from, line, path }),
                    Target::Item(to) => {
                        let to = self.modules[to].of_file;
                        let own = *kind == Kind::Reexport && self.is_within(to, from);
                        if to != from && !own {
                            let path = path.join("::");
                            uses.push(Use {
                                from,
                                to,
                                line,
                                path,
                            });
                        }
                    }
                }
            }
        }
        (self.uses, self.foreign) = (uses, foreign);
    }

    /// Whether `path` begins with an item that a `use` has brought here, which counts already.
    fn is_imported(&self, at: usize, path: &[String]) -> bool {
        let import = path
            .first()
            .and_then(|name| self.modules[at].names.get(name));
        import.is_some_and(|(real, kind)| {
            let target = self.resolve(at, real, MAX_RENAMES);
            *kind == Kind::Import && matches!(target, Target::Item(_))
        })
    }

    pub(crate) fn is_within(&self, module: usize, ancestor: usize) -> bool {
        let (module, ancestor) = (&self.modules[module], &self.modules[ancestor]);
        module.crate_name == ancestor.crate_name && module.path.starts_with(&ancestor.path)
    }

    fn resolve(&self, at: usize, path: &[String], renames: usize) -> Target {
        let Some((first, rest)) = path.split_first() else {
            return Target::Module;
        };
        let start = match first.as_str() {
            "crate" => self.root(at),
            "self" => at,
            "super" => self.modules[at].parent.unwrap_or(at),
            name => match self.step(at, name, rest, renames) {
                Some(Step::Down(child)) => child,
                Some(Step::Renamed(target)) => return target,
                None => match self.libs.get(name) {
                    Some(&lib) => lib,
                    None => return Target::Foreign(path.to_vec()),
                },
            },
        };
        self.descend(start, rest, renames)
    }

    fn descend(&self, mut at: usize, path: &[String], renames: usize) -> Target {
        for (index, name) in path.iter().enumerate() {
            at = match name.as_str() {
                "super" => self.modules[at].parent.unwrap_or(at),
                "self" => at,
                name => match self.step(at, name, &path[index + 1..], renames) {
                    Some(Step::Down(child)) => child,
                    Some(Step::Renamed(target)) => return target,
                    None => return Target::Item(at),
                },
            };
        }
        Target::Module
    }

    /// A module may have the name of an item. At the end of a path the item is meant.
    fn step(&self, at: usize, name: &str, rest: &[String], renames: usize) -> Option<Step> {
        let module = &self.modules[at];
        let child = module.children.get(name).copied();
        let renamed = module.names.get(name).filter(|_| renames > 0);
        match (child, renamed) {
            (Some(child), None) => Some(Step::Down(child)),
            (Some(child), Some(_)) if !rest.is_empty() => Some(Step::Down(child)),
            (_, Some((real, _))) => {
                let path: Vec<_> = real.iter().chain(rest).cloned().collect();
                Some(Step::Renamed(self.resolve(at, &path, renames - 1)))
            }
            (None, None) => None,
        }
    }

    fn root(&self, mut module: usize) -> usize {
        while let Some(parent) = self.modules[module].parent {
            module = parent;
        }
        module
    }
}

enum Step {
    Down(usize),
    Renamed(Target),
}

struct Reader<'a> {
    tree: &'a mut Tree,
    module: usize,
    directory: PathBuf,
    /// Children in files of their own: name, parent, directory.
    found: Vec<(String, usize, PathBuf)>,
}

impl Reader<'_> {
    fn mention(&mut self, path: Vec<String>, span: Span, kind: Kind) {
        let line = span.start().line;
        let mention = Mention { path, line, kind };
        self.tree.modules[self.module].mentions.push(mention);
    }

    fn import(&mut self, tree: &UseTree, path: &mut Vec<String>, kind: Kind) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.import(&part.tree, path, kind);
                path.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, path, kind);
                }
            }
            UseTree::Name(name) => self.import_as(&name.ident, &name.ident, path, kind),
            UseTree::Rename(name) => self.import_as(&name.ident, &name.rename, path, kind),
            // What it names is not known. Of the module itself it is a use.
            UseTree::Glob(glob) => {
                let mut path = path.clone();
                path.push("*".to_owned());
                self.mention(path, glob.star_token.spans[0], kind);
            }
        }
    }

    fn import_as(&mut self, ident: &Ident, rename: &Ident, path: &[String], kind: Kind) {
        let mut path = path.to_vec();
        let mut name = rename.to_string();
        if ident != "self" {
            path.push(ident.to_string());
        } else if rename == "self" {
            name = path.last().cloned().unwrap_or_default();
        }
        let names = &mut self.tree.modules[self.module].names;
        names.insert(name, (path.clone(), kind));
        self.mention(path, ident.span(), kind);
    }

    /// The paths in what a macro or an attribute is given.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        let mut path: Vec<String> = Vec::new();
        let mut start = Span::call_site();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) => {
                    if path.is_empty() {
                        start = ident.span();
                    }
                    path.push(ident.to_string());
                    let mut rest = tokens.clone();
                    let is_colon =
                        |token| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
                    let goes_on = is_colon(rest.next())
                        && is_colon(rest.next())
                        && matches!(rest.next(), Some(TokenTree::Ident(_)));
                    if goes_on {
                        tokens.next();
                        tokens.next();
                    } else {
                        self.mention(std::mem::take(&mut path), start, Kind::Code);
                    }
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

/// Visits nothing of what is compiled for tests or documentation only.
macro_rules! in_the_product {
    ($($visit:ident: $node:ty;)*) => {$(
        fn $visit(&mut self, node: &'ast $node) {
            if !is_for_tests(&node.attrs) {
                visit::$visit(self, node);
            }
        }
    )*};
}

impl<'ast> Visit<'ast> for Reader<'_> {
    in_the_product! {
        visit_field: syn::Field;
        visit_field_value: syn::FieldValue;
        visit_impl_item_const: syn::ImplItemConst;
        visit_impl_item_fn: syn::ImplItemFn;
        visit_item_const: syn::ItemConst;
        visit_item_enum: syn::ItemEnum;
        visit_item_fn: syn::ItemFn;
        visit_item_impl: syn::ItemImpl;
        visit_item_macro: syn::ItemMacro;
        visit_item_static: syn::ItemStatic;
        visit_item_struct: syn::ItemStruct;
        visit_item_trait: syn::ItemTrait;
        visit_item_type: syn::ItemType;
        visit_local: syn::Local;
        visit_variant: syn::Variant;
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        let name = node.ident.to_string();
        if is_for_tests(&node.attrs) || name == "tests" || name.ends_with("_tests") {
            return;
        }
        let directory = self.directory.clone();
        let Some((_, items)) = &node.content else {
            self.found.push((name, self.module, directory));
            return;
        };
        let parent = self.module;
        let file = self.tree.modules[parent].file.clone();
        self.directory = directory.join(&name);
        self.module = self.tree.add_child(parent, &name, &file);
        for item in items {
            self.visit_item(item);
        }
        (self.module, self.directory) = (parent, directory);
    }

    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        if !is_for_tests(&node.attrs) {
            let kind = match node.vis {
                Visibility::Inherited => Kind::Import,
                Visibility::Public(_) | Visibility::Restricted(_) => Kind::Reexport,
            };
            self.import(&node.tree, &mut Vec::new(), kind);
        }
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        let path: Vec<_> = node.segments.iter().map(|s| s.ident.to_string()).collect();
        if let Some(first) = node.segments.first() {
            self.mention(path, first.ident.span(), Kind::Code);
        }
        visit::visit_path(self, node);
    }

    fn visit_expr_method_call(&mut self, node: &'ast syn::ExprMethodCall) {
        // `Instant::elapsed` reads the clock as `Instant::now` does.
        if node.method == "elapsed" && node.args.is_empty() {
            let path = ["Instant", "elapsed"].map(str::to_owned).to_vec();
            self.mention(path, node.method.span(), Kind::Code);
        }
        visit::visit_expr_method_call(self, node);
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        self.visit_path(&node.path);
        self.tokens(node.tokens.clone());
    }

    fn visit_attribute(&mut self, node: &'ast Attribute) {
        self.visit_path(node.path());
        if let Meta::List(list) = &node.meta {
            self.tokens(list.tokens.clone());
        }
    }

    /// `pub(super)` names no item.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn is_for_tests(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            let names = |name| {
                condition
                    .split([' ', '(', ')', ','])
                    .any(|word| word == name)
            };
            (names("test") || names("doc")) && !names("not")
        }
        Meta::List(_) | Meta::NameValue(_) => false,
    })
}
