//! `prevResult`: what the plugin before has made. It names the container's addresses, and it is the answer, too.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::code::{Code, Failure};
use super::fields::{field, text};
use super::network::Version;

/// The addresses of the container on this network, in the order of the result: those that the interface `ifname` of a
/// container has, and those of no interface at all. An address of the host's side is not one.
pub fn addresses(result: &Value, ifname: &str) -> Result<Vec<IpAddr>, Failure> {
    let Value::Object(result) = result else {
        return Err(Failure::new(Code::Decode, "prevResult is no JSON object"));
    };
    let interfaces: Vec<Map<String, Value>> = list(result, "interfaces")?;
    let mut found = vec![];
    for ip in list(result, "ips")? {
        let Some(address) = text(&ip, "address")? else {
            return Err(Failure::new(Code::Decode, "prevResult.ips: an entry has no address"));
        };
        let network: IpNet = address
            .parse()
            .map_err(|e| Failure::new(Code::Decode, format!("prevResult.ips: address {address:?}: {e}")))?;
        // a result of an early version may count from -1
        let index = field::<i64>(&ip, "interface")?.and_then(|index| usize::try_from(index).ok());
        if let Some(interface) = index.and_then(|index| interfaces.get(index)) {
            let name = text(interface, "name")?;
            if name.as_deref() != Some(ifname) || text(interface, "sandbox")?.is_none() {
                continue;
            }
        }
        if !found.contains(&network.addr()) {
            found.push(network.addr());
        }
    }
    Ok(found)
}

fn list(result: &Map<String, Value>, key: &str) -> Result<Vec<Map<String, Value>>, Failure> {
    field(result, key)
        .map(Option::unwrap_or_default)
        .map_err(|e| Failure::new(e.code, format!("prevResult.{}", e.details)))
}

/// The result as `version` has it: the same, unless it came in another one. Before 1.0.0 an address says its family.
pub fn as_version(result: &Value, version: Version) -> Value {
    let mut result = result.clone();
    let Value::Object(fields) = &mut result else { return result };
    let came = fields.get("cniVersion").and_then(Value::as_str).map(str::to_owned);
    if came.as_deref() == Some(version.name()) {
        return result;
    }
    fields.insert("cniVersion".to_owned(), json!(version.name()));
    if came.is_none_or(|came| came.is_empty()) {
        return result;
    }
    for ip in fields.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let Value::Object(ip) = ip else { continue };
        let inet6 = ip.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
        if version < Version::V1_0_0 {
            ip.insert("version".to_owned(), json!(if inet6 { "6" } else { "4" }));
        } else {
            ip.remove("version");
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_host_are_left_out() {
        let result = json!({
            "interfaces": [
                { "name": "bridge0" },
                { "name": "eth0", "sandbox": "web" },
                { "name": "eth1", "sandbox": "web" },
                { "name": "eth0" },
            ],
            "ips": [
                { "address": "10.88.0.1/16", "interface": 0 },
                { "address": "10.88.0.5/16", "interface": 1 },
                { "address": "10.89.0.5/16", "interface": 2 },
                { "address": "10.90.0.5/16", "interface": 3 },
                { "address": "fd00::5/64" },
                { "address": "10.91.0.5/16", "interface": 9 },
                { "address": "10.92.0.5/16", "interface": -1 },
                { "address": "10.88.0.5/16", "interface": null },
            ],
        });
        let found = addresses(&result, "eth0").unwrap();
        let expected: Vec<IpAddr> =
            ["10.88.0.5", "fd00::5", "10.91.0.5", "10.92.0.5"].iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(found, expected);
        for (result, says) in [
            (json!({ "ips": [ { "address": "10.88.0.5" } ] }), "10.88.0.5"),
            (json!({ "ips": [ { "address": 5 } ] }), "address is 5"),
            (json!({ "ips": [ {} ] }), "no address"),
            (json!({ "ips": {} }), "prevResult.ips"),
            (json!({ "ips": [ 5 ] }), "prevResult.ips"),
            (json!([]), "no JSON object"),
        ] {
            let failure = addresses(&result, "eth0").unwrap_err();
            assert_eq!(failure.code, Code::Decode);
            assert!(failure.details.contains(says), "{failure}");
        }
    }

    #[test]
    fn a_result_changes_only_where_the_version_does() {
        let result = json!({ "cniVersion": "1.0.0", "ips": [ { "address": "10.0.0.2/24" } ], "x": { "y": [1, null] } });
        assert_eq!(as_version(&result, Version::V1_0_0), result);
        let old = as_version(&result, Version::V0_4_0);
        assert_eq!((&old["cniVersion"], &old["ips"][0]["version"]), (&json!("0.4.0"), &json!("4")));
        assert_eq!(as_version(&old, Version::V1_0_0), result);
        let mut unnamed = result.clone();
        unnamed.as_object_mut().unwrap().remove("cniVersion");
        assert_eq!(as_version(&unnamed, Version::V1_0_0), result);
    }

    /// All that a configuration is asked, as the commands do it.
    fn read(bytes: &[u8]) -> Result<(), Failure> {
        let network = super::super::network::Network::read(bytes)?;
        let answers = [
            network.overrides().map(|_| ()),
            network.publishing().map(|_| ()),
            network.mappings("em0".parse().unwrap()).map(|_| ()),
            network.valid_attachments().map(|_| ()),
            network.previous().map_or(Ok(()), |result| {
                for version in Version::ALL {
                    let made = as_version(result, version);
                    assert!(!made.is_object() || made["cniVersion"] == version.name());
                }
                addresses(result, "eth0").map(|_| ())
            }),
        ];
        answers.into_iter().collect()
    }

    fn whole() -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "podman", "type": "portmap", "backend": "sim", "stateDir": "/x", "timeout": 5,
            "reach": ["bridge"], "sources": ["192.0.2.0/24"], "hairpin": true, "hostAccess": false, "snat": true,
            "limits": { "connections": 1, "connectionsPerSource": 2, "rate": "5/10" }, "log": false, "quick": true,
            "place": "em0", "force": false, "allowInert": false, "conditionsV4": [], "args": { "x": [1] },
            "runtimeConfig": { "portMappings": [
                { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1" }
            ] },
            "cni.dev/valid-attachments": [ { "containerID": "a", "ifname": "eth0" } ],
            "prevResult": {
                "cniVersion": "1.1.0",
                "interfaces": [ { "name": "eth0", "sandbox": "blue" } ],
                "ips": [ { "address": "10.88.0.5/16", "interface": 0, "version": "4" } ],
            },
        })
    }

    /// Every value of a document, by its path.
    fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    pointers(value, &format!("{path}/{}", key.replace('/', "~1")), found);
                }
            }
            Value::Array(list) => {
                for (at, value) in list.iter().enumerate() {
                    pointers(value, &format!("{path}/{at}"), found);
                }
            }
            _ => {}
        }
    }

    fn is_told(answer: Result<(), Failure>) -> Result<(), proptest::test_runner::TestCaseError> {
        if let Err(failure) = answer {
            let expected = [Code::Version, Code::Unsupported, Code::Decode, Code::Config];
            proptest::prop_assert!(expected.contains(&failure.code), "{failure:?}");
            proptest::prop_assert!(!failure.details.contains(char::is_control), "{failure:?}");
            proptest::prop_assert!(!failure.details.is_empty() && failure.details.len() < 2000, "{failure:?}");
        }
        Ok(())
    }

    fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
            "[0-9a-f.:/%\\-*<>\\x00\\n]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inside| {
            prop_oneof![
                proptest::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-zA-Z.]{0,12}", inside, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn the_whole_document_is_good() {
        assert_eq!(read(whole().to_string().as_bytes()), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
            is_told(read(&bytes))?;
        }

        #[test]
        fn no_cut_or_flip_panics(at in 0..2000usize, bit in 0..8u8, cut in proptest::arbitrary::any::<bool>()) {
            let mut bytes = whole().to_string().into_bytes();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            is_told(read(&bytes))?;
        }

        #[test]
        fn no_value_in_any_place_panics(at in 0..1000usize, value in any_json()) {
            let mut document = whole();
            let mut found = vec![];
            pointers(&document, "", &mut found);
            *document.pointer_mut(&found[at % found.len()]).unwrap() = value;
            is_told(read(document.to_string().as_bytes()))?;
        }

        #[test]
        fn no_unknown_field_passes(name in "[a-zA-Z]{1,12}", value in any_json()) {
            let mut document = whole();
            proptest::prop_assume!(document.get(&name).is_none());
            document[&name] = value;
            if let Err(failure) = read(document.to_string().as_bytes()) {
                is_told(Err(failure))?;
            } else {
                // fields that are the runtime's, or another plugin's
                let known = ["cniVersions", "capabilities", "dns", "ipam", "ipMasq", "disableCheck", "disableGC", "plugins"];
                let portmaps = ["conditionsV6", "masqAll", "markMasqBit", "externalSetMarkChain"];
                proptest::prop_assert!(known.contains(&name.as_str()) || portmaps.contains(&name.as_str()), "{name}");
            }
        }
    }
}
