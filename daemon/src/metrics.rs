//! The metrics of a program: each is named once, with its field, its type and its help.

/// Declares a struct of metrics. Its `Default` makes them, and `register_all` registers them in this order.
///
/// `field: Type => "name", "help";` is a metric with its default value. `= value` makes it otherwise, and `in Seconds` gives it a unit.
/// `=> registered;` is a field that registers itself, `=> unregistered;` one that the registry does not see.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($field:ident: $type:ty $(= $new:expr)? => $metric:tt $(in $unit:ident)? $(, $help:expr)?;)*
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $crate::metrics!(@new $($new)?),)*
                }
            }
        }

        impl $name {
            fn register_all(&self, registry: &mut prometheus_client::registry::Registry) {
                $($crate::metrics!(@register registry, self.$field, $metric $(in $unit)? $(, $help)?);)*
            }
        }
    };
    (@new) => { Default::default() };
    (@new $new:expr) => { $new };
    (@register $registry:ident, $field:expr, registered) => { $field.register($registry) };
    (@register $registry:ident, $field:expr, unregistered) => {};
    (@register $registry:ident, $field:expr, $metric:tt, $help:expr) => {
        $registry.register($metric, $help, $field.clone())
    };
    (@register $registry:ident, $field:expr, $metric:tt in $unit:ident, $help:expr) => {
        $registry.register_with_unit(
            $metric,
            $help,
            prometheus_client::registry::Unit::$unit,
            $field.clone(),
        )
    };
}
