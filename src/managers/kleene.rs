//! Kleene. Its daemon uses the C ABI of kport, with the records of [`container::kleene`](crate::container::kleene).

use super::Manager;

pub(super) const KLEENE: Manager = Manager {
    replaces_ruleset: |root| {
        let template = root.path_setting("/usr/local/etc/kleened/config.yaml", "pf_config_template_path")?;
        let shown = template.display();
        let seen = format!("Kleene generates the main ruleset from {shown}, which does not call kport's anchors");
        root.without_calls(&template, seen)
    },
    ..Manager::named("kleene")
};
