/// Declares an enum whose variants have names: `Variant => "name"`. It gets `ALL`, in the order of the variants, and `as_str`.
/// Where serde gives the names, the variants stand alone, and the enum gets `ALL`.
#[macro_export]
macro_rules! named {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident => $text:literal,)*
        }
    ) => {
        $crate::named! {
            $(#[$meta])*
            $vis enum $name {
                $($(#[$variant_meta])* $variant,)*
            }
        }

        impl $name {
            /// The name.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident,)*
        }
    ) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        #[allow(dead_code, reason = "not each of these enums is listed outside of tests")]
        impl $name {
            /// All of them, in their order.
            $vis const ALL: [Self; [$(stringify!($variant)),*].len()] = [$(Self::$variant),*];
        }
    };
}
