//! Kleene. Its daemon uses the C ABI of kport, with the records of [`container::kleene`](crate::container::kleene).

use super::root::add_calls;
use super::{Manager, Root};
use crate::error::Problem;

#[derive(Debug)]
pub(super) struct Kleene;

impl Manager for Kleene {
    fn name(&self) -> &'static str {
        "kleene"
    }

    fn replaces_ruleset(&self, root: &Root<'_>) -> Option<Problem> {
        let template = root.path_setting("/usr/local/etc/kleened/config.yaml", "pf_config_template_path")?;
        root.lacks_calls(&template).then(|| Problem {
            seen: format!(
                "Kleene generates the main ruleset from {}, which does not call kport's anchors",
                template.display()
            ),
            remedy: add_calls(&template),
        })
    }
}
