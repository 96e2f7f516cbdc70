"""The search for hyperparameters: trials on the validation window, kept so that a search can go on."""
