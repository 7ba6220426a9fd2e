//! Whether the main ruleset calls kport's anchors for every packet.

use super::outside::main_ruleset;
use super::{Findings, MainRuleset};
use crate::error::Result;
use crate::publication::Publication;

/// A call with a condition is a problem if published ports do not arrive; otherwise it may be intended.
pub fn calls<'p>(main: &MainRuleset<'_>, publications: impl IntoIterator<Item = &'p Publication>) -> Result<Findings> {
    let mut found = Findings::default();
    let conditional = &main.facts()?.conditional;
    if !conditional.is_empty() {
        let Findings { problems, warnings, .. } = main_ruleset(main, publications)?;
        let arrives = problems.is_empty() && warnings.is_empty();
        let list = if arrives { &mut found.warnings } else { &mut found.problems };
        list.extend_from_slice(conditional);
    }
    Ok(found)
}
