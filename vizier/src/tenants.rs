//! Who runs count against together: for now whoever the other end of the connection is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use host::tenant::{Budget, Tenant};

/// Tenants remembered. One that has no run is forgotten when there are more, and its accounts with it.
const TENANTS_MAX: usize = 1024;

/// All tenants that are known.
#[derive(Debug)]
pub struct Tenants {
    budget: Budget,
    by_name: Mutex<HashMap<String, Arc<Tenant>>>,
}

impl Tenants {
    /// None yet; each gets this budget.
    pub fn new(budget: Budget) -> Self {
        Self { budget, by_name: Mutex::default() }
    }

    /// The tenant of that name.
    pub fn get(&self, name: &str) -> Arc<Tenant> {
        let mut tenants = self.by_name.lock().expect("no panic while it is held");
        if let Some(tenant) = tenants.get(name) {
            return tenant.clone();
        }
        if tenants.len() >= TENANTS_MAX {
            tenants.retain(|_, tenant| Arc::strong_count(tenant) > 1);
        }
        let tenant = Arc::new(Tenant::new(name, self.budget));
        tenants.insert(name.to_owned(), tenant.clone());
        tenant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_the_same_as_long_as_it_has_a_run() {
        let tenants = Tenants::new(Budget::UNLIMITED);
        let one = tenants.get("uid:1");
        for n in 0..2 * TENANTS_MAX {
            tenants.get(&format!("uid:{}", n + 2));
        }
        assert_eq!(tenants.get("uid:1").id(), one.id());
        assert!(tenants.by_name.lock().unwrap().len() <= TENANTS_MAX + 1);
    }
}
