"""What is computed: the parameters of ``nn.LSTM`` in our layout and in their precision."""
