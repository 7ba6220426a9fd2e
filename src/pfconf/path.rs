//! Paths of anchors: what a call refers to, and which anchor is below which.

use std::fmt;

use crate::name::PARENT;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Called {
    pub path: String,
    /// Its children, not itself: `rdr/*`.
    pub children: bool,
}

impl Called {
    /// The target of `call` in the ruleset of anchor `caller`: below the caller; above it for each leading `../`, but not
    /// otherwise, since pf treats any later `..` as a name; from the root with a leading `/` (pf_kanchor_setup in
    /// sys/netpfil/pf/pf_ruleset.c).
    pub fn resolve(caller: &str, call: &str) -> Called {
        let (mut base, mut rest) = match call.strip_prefix('/') {
            Some(absolute) => ("", absolute),
            None => (caller, call),
        };
        while let Some(above) = rest.strip_prefix("../").filter(|_| !call.starts_with('/')) {
            base = base.rsplit_once('/').map_or("", |(parent, _)| parent);
            // the children of one above are returned as "..//*" (pf_kanchor_copyout)
            rest = above.trim_start_matches('/');
        }
        match rest.strip_suffix('*').filter(|parent| parent.is_empty() || parent.ends_with('/')) {
            Some(parent) => Called { path: join(base, parent.trim_end_matches('/')), children: true },
            None => Called { path: join(base, rest), children: false },
        }
    }

    /// Whether kport's anchors are called: by the calls in `kport`, or all of them by `kport/*`.
    pub fn is_kport(&self) -> bool {
        self.path == PARENT
    }

    /// The anchors that are called; `children` lists those directly below one.
    pub fn anchors<E>(self, children: impl FnOnce(&str) -> Result<Vec<String>, E>) -> Result<Vec<String>, E> {
        if !self.children {
            return Ok(vec![self.path]);
        }
        Ok(children(&self.path)?.iter().map(|child| join(&self.path, child)).collect())
    }
}

impl fmt::Display for Called {
    /// The path as called from the main ruleset.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.children {
            true => f.write_str(&join(&self.path, "*")),
            false => f.write_str(&self.path),
        }
    }
}

pub fn join(anchor: &str, child: &str) -> String {
    match (anchor, child) {
        ("", path) | (path, "") => path.to_owned(),
        _ => format!("{anchor}/{child}"),
    }
}

/// Whether an anchor is kport's own, or their parent.
pub fn is_own(path: &str) -> bool {
    path == PARENT || is_below_own(path)
}

/// Whether an anchor is below the parent of kport's own.
pub fn is_below_own(path: &str) -> bool {
    path.strip_prefix(PARENT).is_some_and(|rest| rest.starts_with('/'))
}
